"""What investigates silence: sees every answer, explains it, and looks into sources that have gone empty."""
