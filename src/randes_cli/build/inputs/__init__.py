"""What a bank is made of: tasks opened under the base's names, and which deltas come and go."""
