"""What a row is: the formats that come in, and the tables that a store holds."""
