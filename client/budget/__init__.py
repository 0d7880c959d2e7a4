"""Privacy: what noise costs, how it is drawn, and the ledger of what has been spent."""
