"""llama.cpp as a model of the engine: the file, the context and its cache, samplers, grammars.

Rules: `model` is the only importer of llama_cpp; the others are given the library. Sizes, ids and
grammars are checked before llama.cpp sees them, since it takes them for granted.

May not enter: messages, Redis, Celery, anything of the herder.
"""
