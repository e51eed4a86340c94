"""The bodies that routes read and answer, as pydantic models: the source of /openapi.json.

May not enter: anything that asks a database or decides.
"""
