"""Investigation of silence: sees and explains every answer, and examines sources that have gone empty."""
