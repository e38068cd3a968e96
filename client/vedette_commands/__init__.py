"""What the commands `vedette` and `vedette-server` do alike: how they begin and end, read their options and print."""
