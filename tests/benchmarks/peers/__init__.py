"""Clockwork beside db-scheduler and River, on the same PostgreSQL and Kafka, in turn, in one run.

    make bench SCENARIO=peers              half an hour
    make bench SCENARIO=peers QUICK=1      a tenth of the size, two rounds

    drain       20,000 due at one moment, from the due time to the broker's time of the last record
    creates     by batches of a hundred (four callers) and one by one (64 callers), due tomorrow
    lateness    100 and 500 a second for 20 seconds, created by ten batches a second, due six to seven seconds later

and the CPU of each: of all processes, the contender's own, PostgreSQL's and Kafka's beyond what an idle one uses.

The peers are libraries, so each has a driver of ours around it: `db_scheduler` (Java, by Maven), `river` (Go). A due job of
theirs does what Clockwork does for a schedule: one record to the same topic, with the same payload, acknowledged by all
replicas to an idempotent producer. The settings are those with which they were quickest here, within what their manuals
advise (`contenders`). A peer whose tools are missing is left out, and a line says so.

Not alike, and in their favour: they keep no order, promise at-least-once, and are called in their own process, while a
create of Clockwork is an HTTP request and its record part of a transaction. Only one of them works at a time; the peers'
processes stay between rounds, warm, while a node of Clockwork is started for each.
"""
