"""What any engineer would try first, scored on the same rows: the floor beside every score."""
