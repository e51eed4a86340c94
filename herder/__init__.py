"""Llama Herder: a shared herd of machines for LLM inference, paid by the prompt."""
