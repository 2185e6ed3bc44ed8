"""Speed, measured beside a yardstick in the same run, and printed; nothing here asserts a figure.

    make bench                             all of it, an hour or two
    make bench SCENARIO=drain QUICK=1      one scenario, a tenth of the size, two rounds

    sections       synchronous sections of the event loop, at the largest sizes allowed; no services
    turns          every turn of a whole node's event loop, under the largest loads
    creates        creates over HTTP, beside bare transactions of DynamoDB
    creates-stub   CPU of a create, on a stub DynamoDB
    drain          50,000 due schedules, one process and two, beside bare transactions and writes
    drain-stub     CPU of a delivery, on a stub DynamoDB
    shards         drain against the number of shards and processes
    lateness       at 10, 100 and 500 a second, beside a bare transaction
    steady         100 and 300 a second on 64 shards, created by two processes, beside a bare producer that group-commits the
                   same: transactions, CPU and lateness; `--against PATH` measures another worktree's node in turn
    memory         1,000 a second from the memory store, created by batches
    memory-drain   50,000 due schedules from the memory store
    pace           lateness and transactions at a pace of 0, 10, 20 and 40 ms
    rebalance      lateness while a node joins and leaves
    burst          20,000 due in one millisecond, and what the others feel of it
    pending        lateness, CPU and memory with 10^4 to 10^6 schedules waiting for tomorrow
    idle           CPU, requests and capacity of a node without schedules
    cost           capacity units of a schedule's whole life
    takeover       64 shards after kill -9, 30 times
    handover       64 shards to a node that joins, in order
    rolling        a rolling restart of three nodes
    node-cpu       where the node's CPU for a schedule goes
    broker-cpu     where the broker's CPU for a transaction goes: by transaction, Kafka partition, record
    transactions   our Kafka transactions beside the library's
    calls          our DynamoDB calls beside the library's
    snapshot       1,000 a second before, during and after a snapshot of ten minutes; PostgreSQL only
    peers          beside db-scheduler and River, in turn: drain, creates, lateness, CPU; PostgreSQL only (`peers`)
    ready          `make run` until it is ready, PostgreSQL beside DynamoDB Local
    uvloop         creates-stub, drain-stub and lateness on both event loops; on request only

A ratio is taken round by round, ours and the yardstick's right after each other (`figures`). Results go to
`bench-results/`: a table, the same as JSON, and plots.
"""
