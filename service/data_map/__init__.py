"""Where a person's data can lie: each place, what it holds, when it goes. Tests compare it with the code."""
