"""Policies in Hugging Face folders: config.json to shapes and back, safetensors to placed params and back."""
