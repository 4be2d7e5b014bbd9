"""The way from one recurrent cell to Shakespeare, a module a lesson, each using charlm as a user would.

A lesson has a function `run(say, seed)`: it says what it does line by line and returns its figures.
"""

LESSONS: dict[str, str] = {
    "hello": "an LSTM of five units learns to answer 'hihell' with 'ihello'",
}
"""Names and titles, in the order to take them in."""
