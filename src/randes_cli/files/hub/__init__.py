"""Models and banks on the Hub."""
