"""The same folder, run by transformers."""

import numpy as np
import torch
import transformers

transformers.utils.logging.set_verbosity_error()
torch.set_num_threads(1)


def load(folder, dtype: str = 'float32', attention: str = 'eager'):
  """The model, which must find all its weights in the folder and no others."""
  model, info = transformers.AutoModelForCausalLM.from_pretrained(
      folder, dtype=getattr(torch, dtype), attn_implementation=attention, output_loading_info=True)
  assert not info['missing_keys'] and not info['unexpected_keys'] and not info['mismatched_keys'], info
  return model.eval()


def logits(model, prompt) -> np.ndarray:
  """float32[len(prompt), V]."""
  with torch.no_grad():
    return model(torch.tensor(np.asarray(prompt, np.int64)[None])).logits[0].float().numpy()


def greedy(model, prompt, num: int) -> list[int]:
  """The most probable tokens, one by one, with transformers' cache."""
  model.generation_config = transformers.GenerationConfig(
      do_sample=False, max_new_tokens=num, use_cache=True, eos_token_id=-1, pad_token_id=0)
  ids = torch.tensor(np.asarray(prompt, np.int64)[None])
  return model.generate(ids, attention_mask=torch.ones_like(ids))[0, len(prompt):].tolist()
