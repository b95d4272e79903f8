"""The control pieces of our own tokenizers, and how a thought is marked in any."""

THINK_OPEN, THINK_CLOSE = '<think>', '</think>'
END = '<|end|>'
ROLE_TOKENS = {'system': '<|system|>', 'user': '<|user|>', 'assistant': '<|assistant|>'}
CONTROL_PIECES = (*ROLE_TOKENS.values(), END, THINK_OPEN, THINK_CLOSE)
