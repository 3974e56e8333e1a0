"""One file for each part of the contract: from a parsed request to a reply."""
