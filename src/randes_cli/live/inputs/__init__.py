"""What a batch may have beside plain rows: pictures, few wanted answers, packed requests."""
