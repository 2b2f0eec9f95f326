"""The server of the tests here, and what lies on it."""

from tests.store_server import store, store_server
from tests.stores.bucket import far, here

__all__ = ["far", "here", "store", "store_server"]
