"""Connections that carry messages: kept, shared by an adapter, published on."""

from __future__ import annotations
