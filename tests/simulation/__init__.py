"""The promises, tried on thousands of made-up histories: the production engine, N nodes in one process, virtual time.

What runs is the engine as it is (create, cancel, changes, take-over, passes, cleanup, supervisor, clock guard), and the
intake of commands (`commands.worker`). What is made up is everything outside: DynamoDB, Kafka, the consumer groups,
clocks, and clients. From one seed comes one history,
byte for byte the same on every machine; a seed that fails is a bug report.

    virtual_loop      several event loops and one time that jumps; pausing and killing a node
    host, clocks      a node as the worlds see it: connections, a wrong clock
    store_world       DynamoDB: transactions applied item by item, queries that are no snapshots, late and lost writes
    kafka_world       brokers: producer epochs, decided first and visible later; deposed ones that do not know it
    kafka_host        the client on one node: slots, barriers
    group_world       the consumer group: zombies, overlapping owners, answers that lag, lost wake-ups
    job_world         the table of jobs, and rows of jobs that are deleted by hand
    command_world     the commands topic, its group's offsets, and the port CommandLog on one node
    faults            what goes wrong in a run, drawn from the seed; themes: what all runs of a theme are mostly about
    node, cluster     the engine put together; life and death of nodes
    workload          clients, on purpose near due times; client_tasks: their tasks
    job_clients       clients of recurring jobs, near fire times; job_consumers: consumers of their runs
    job_calendar      the calendar that some of them name, which opens and closes
    job_checkers      which fire times there should be; answers
    producers         commands, in transactions of which some are aborted; what is to be said of their answers
    checkers          judge by what the worlds hold and what clients were told
    linearizability   do the answers about one key fit one order of the requests?
    trace             what happened in a run, and the promises that it broke
    mutations         deliberate breaks of the protocol, each of which must be caught; breaks, breaks_of_…: what
                      stands in for the engine's own functions
    scripted          histories written by hand, for what takes more coincidences than thousands of seeds have
    selection         how much of it `make test` runs; `make sim` runs all
    run               one seed, or many: python -m tests.simulation.run

A run has three phases: faults; then everything is mended, and all that is due must end (liveness); then it is quiet for a
while, so that late copies arrive, and the checkers judge.

**What the worlds leave out.** A green run says nothing about these:

- The adapters. `clockwork.stores` is not in here (but for the store's conditions, which are those of its twin in memory;
  one suite holds the twin and the real service to the same contract). So calls that several requests share, with one
  throttled among them, do not occur. What the real adapters make of answers of the client libraries is tested on the real
  services.
- DynamoDB: partial batches that are refused item by item, item sizes and the 1 MB page (pages may end after one or two rows
  instead), more than one table's throttling, a restore from a backup. Rows that cannot be read, or were written by a newer
  version, do not occur. TTL deletes what has expired; in most runs nothing does.
- Kafka: brokers that lose acknowledged data, log retention and compaction, quotas, a deleted marker topic. A deposed broker
  harms no other, and its log is thrown away when it learns. A produce request that arrives after its transaction was
  ended is refused, as brokers do that verify transactions (KIP-890).
- The group: assignments come as a whole; the protocol below (join, sync, generations) is not played, but for the one
  question whether a generation is current.
- Time: nodes drift by 0.01 %, jump, and are off; the store's own clock is right, because it is the reference by definition.
- Python: nothing is slow. A pass over ten thousand rows takes no time here, so starvation of heartbeats is not seen. Nor is
  lateness: that one slow topic holds up no other is tested elsewhere.
- Commands: offsets that are lost, or reset by hand; a topic made anew; poison; answers that are given up.
- Changes of the shard count. The sweep, which comes once an hour; a script plays it by hand. Long waits: back-off, scan
  interval, topic wait, the time limits of transactions, and the limits of a slot are set so low that a run reaches them.

Late means: a request that was given up may be carried out up to several seconds later, after others, even twice, except
those that the client library must not repeat. That is more than networks usually do, and exactly what the store's contract
says (`ports.ScheduleStore`: "or may be applied later").
"""
