"""Bad input from everywhere: whatever comes, there is a clear answer, and what is sound goes on.

    requests   raw HTTP: methods, targets, headers, bodies                        below 500, as a problem document
    rows       items of `schedules`, damaged or put by hand                       dead letter, or left out and counted
    wakeups    records on the ownership topic                                     counted, logged once per cause
    files      the settings' file, the keys' file                                 one line that says what is wrong

Each campaign makes its input by hypothesis and counts what became of it in a `Tally`. `test_fuzz.py` runs a few examples
of each in memory, `test_fuzz_real.py` on a real Kafka and DynamoDB Local, and `make fuzz MINUTES=5` runs all of them over
and over, each round from another seed, and prints the counts.
"""
