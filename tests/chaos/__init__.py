"""Chaos on real processes: three nodes, a real Kafka and a real DynamoDB Local, and faults at all of them.

    python -m tests.chaos.run --minutes 5 --seed 7      # one run; without a seed one is drawn and printed
    python -m tests.chaos.run --takeovers 10            # kill -9 in a row: how long until other nodes deliver?

The seed fixes what is broken, when, and the mix of requests; not the interleaving, which is the machine's. So a seed that
found something finds it again often, not always: the logs of every node are kept when a promise was broken.

    plan           what goes wrong and when, from the seed
    world          the services and the nodes' seats
    skewed_node    a node with a wrong clock
    disturbances   the plan, carried out
    workload       creates, repeats, cancels, changes, fires, arms again and reads, over HTTP and by command, without end
    mix            how much of each
    request_client one request, until it is answered
    command_producer
                   commands, in transactions of which some are aborted
    history        what was asked and answered
    healed_phase   everything healed: all that is due must end, and nothing be left
    checker        are the promises kept? Sees the history and the records, nothing of the service; what only changes and
                   commands promise is in checker_of_changes and checker_of_commands
    made_histories histories for the checker's own tests; made_job_histories: of jobs
    job_plan       recurring jobs beside the schedules, drawn from the seed
    job_load       their clients: changes, pauses, deletes, runs by hand, close to fire times, over HTTP and by command
    job_calendar   the calendar that some of them name, which opens and closes
    job_consumers  consumers of their runs, who complete, fail, send heartbeats, or die in the middle of one
    job_history    what was asked of jobs, and answered; job_records: records and entries of logs
    healed_jobs    every job is brought back, must run on, and is deleted
    checker_of_jobs, checker_of_runs
                   each fire time once, in order, answers kept, logs true; a run whose consumer died comes again, once
    run            one run, from the command line
    figures        the table
    takeovers      the measurement of take-over

And one fault at a time:

    restarts       a rolling restart and a scale-down
    dying_node     a node that dies between two steps of a take-over
    lost_commits   commits whose answers are lost; short_commit_timeout_node gives them up soon
    frozen_leader  one topic's leader stands still; brokers: a second broker
"""
