"""Why an answer is empty, or suspicious: a closed list of findings, and the rules that recognise them."""
