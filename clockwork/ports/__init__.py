"""What the engine needs from outside, as contracts. Each has a twin in memory and one suite that runs on both.

Errors, for every port: `Unavailable` and below when the other side does not answer in time (never a client library's
own exception); the rest as each method says. Every method may be cancelled; a cancelled write may have happened.
"""
