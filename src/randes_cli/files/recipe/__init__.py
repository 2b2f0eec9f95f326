"""Recipes: what a bank is made from, as a file."""
