"""The server of the tests here."""

from tests.store_server import store, store_server

__all__ = ["store", "store_server"]
