"""Explanation of empty or suspicious answers: a closed list of findings, and the rules that recognise them."""
