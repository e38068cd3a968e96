"""Common behaviour of the commands `vedette` and `vedette-server`: start, exit, options and output."""
