"""A user's own data: adapted to the sample contract, surveyed, divided into parts."""
