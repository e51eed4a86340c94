"""Monitoring for operators: Prometheus metrics, and the figures behind them.

Rules: no label names an account, an order or a key. Figures are read by indexes and from event to
event, never by reading every order.

May not enter: anything that changes the herd.
"""
