"""One worker instance: claims, beats and orders to stop, beside the engine that it feeds.

Rules: a claim is sent before a prompt reaches the engine; an outcome is kept and sent again until a
herder confirms it (`outcomes`). A slow Redis delays text (`texts`), never decoding.

May not enter: llama.cpp, prices, SQL.
"""
