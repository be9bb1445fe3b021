"""What people look at: the store as a web page, written once (`report`) or live (`view`)."""
