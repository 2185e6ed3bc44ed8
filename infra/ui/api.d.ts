// Written by `python -m infra.ui.types`. The HTTP API: its documents, and those that each call takes and answers.
// A global namespace: JSDoc names a document as Api.ScheduleDocument, without an import.

declare namespace Api {
  interface AliveDocument {
    status: "alive";
  }
  interface AnyForm {
    start?: number | string | null;
    end?: number | string | null;
    maxRuns?: number;
    jitterMs?: number;
    jitterPer?: "job" | "run";
    type: "any";
    of: (CronMemberForm | FixedRateMemberForm)[];
  }
  interface BackfillDocument {
    requestId: string;
    run: RunDocument;
  }
  interface BackfillForm {
    requestId: string;
    from: number | string | null;
    to: number | string | null;
    maxRuns?: number;
  }
  interface BatchDocument {
    results: (ItemDocument | ConflictDocument | StaleDocument | InvalidDocument)[];
  }
  interface BucketDocument {
    at: number;
    count: number;
    exact: boolean;
  }
  interface CalendarDocument {
    dates?: string[];
    annual?: string[];
    weekdays?: string[];
    cron?: string[];
    clientId: string;
    name: string;
    description?: string;
    version: number;
    createdAt: number;
    updatedAt: number;
    changedBy?: string;
    behind?: string[];
    moreBehind?: boolean;
  }
  interface CalendarForm {
    dates?: string[];
    annual?: string[];
    weekdays?: ("SUN" | "MON" | "TUE" | "WED" | "THU" | "FRI" | "SAT")[];
    cron?: string[];
    description?: string | null;
  }
  interface CalendarInUseDocument {
    type: string;
    title: string;
    status: number;
    detail: string;
    jobs: string[];
  }
  interface CalendarsDocument {
    calendars: CalendarDocument[];
    cursor: string | null;
  }
  interface CancelManyForm {
    schedules: KeyForm[];
    reason?: string | null;
  }
  interface ChangeForm {
    clientId?: string | null;
    scheduleKey?: string | null;
    orderingKey?: string | null;
    taskDataEncoding?: "json" | "base64" | null;
    scheduleTime?: 0 | number | string | null;
    taskData?: unknown | null;
    delivery?: DeliveryChangeForm | null;
  }
  interface ClientCountDocument {
    clientId: string;
    count: number;
  }
  interface ClientDocument {
    clientId: string;
    firstDay: string;
    lastDay: string;
  }
  interface ClientsDocument {
    clients: ClientDocument[];
    complete: boolean;
    asOf: number;
  }
  interface CompleteForm {
    attempt?: number;
    startedAt?: number | string | null;
    result?: unknown;
  }
  interface CompletionDocument {
    timeoutMs: number;
    retry?: RunRetryDocument;
    retryOn?: ("timeout" | "failure")[];
  }
  interface CompletionForm {
    timeoutMs: number;
    retry?: RunRetryForm | null;
    retryOn?: ("timeout" | "failure")[] | null;
  }
  interface ConflictDocument {
    type: string;
    title: string;
    status: number;
    detail: string;
    reason: "pending" | "delivered" | "failed" | "cancelled" | "in_flight";
    schedule: ScheduleDocument;
  }
  interface CountsDocument {
    created: number;
    cancelled: number;
    moved: number;
    delivered: number;
    retried: number;
    failed: number;
    lateness: number[];
  }
  interface CreateManyForm {
    schedules: ScheduleForm[];
  }
  interface CronForm {
    start?: number | string | null;
    end?: number | string | null;
    maxRuns?: number;
    jitterMs?: number;
    jitterPer?: "job" | "run";
    timeZone?: string;
    dst?: DstForm | null;
    exclude?: ExclusionForm | null;
    onExcluded?: "skip" | "next" | "previous";
    type: "cron";
    expression: string;
    dialect?: "unix" | "quartz" | "spring" | "aws" | null;
    days?: "or" | "and" | null;
  }
  interface CronMemberForm {
    timeZone?: string;
    dst?: DstForm | null;
    exclude?: ExclusionForm | null;
    onExcluded?: "skip" | "next" | "previous";
    type: "cron";
    expression: string;
    dialect?: "unix" | "quartz" | "spring" | "aws" | null;
    days?: "or" | "and" | null;
  }
  interface DeadLetterDocument {
    deadLetterTopic: string;
    partition: number;
    offset: number | bigint;
    at: number;
    open: boolean;
    discardedAt?: number;
    clientId?: string;
    scheduleKey?: string;
    scheduleTime?: number;
    deliveryId?: string;
    jobId?: string;
    runId?: string;
    topic?: string;
    reason?: string;
    attempts?: number;
    lastRefusal?: string;
    status?: "pending" | "delivered" | "cancelled" | "failed";
    version?: number;
    orderingKey?: string;
    headers?: Record<string, string | null>;
    value?: string;
    valueEncoding?: "text" | "base64";
    redacted?: true;
  }
  interface DeadLettersDocument {
    deadLetters: DeadLetterDocument[];
    cursor: string | null;
  }
  interface DeliveredDocument {
    topic: string | null;
    partition: number;
    offset: number | bigint;
    at: number;
    latenessMs: number;
  }
  interface DeliveryChangeForm {
    topic?: string | null;
    deadline?: number | null;
    onLate?: "deliver" | "drop" | "dead_letter" | null;
    guarantee?: "exactly_once" | "at_least_once" | null;
    headers?: Record<string, string> | null;
    retry?: RetryForm | null;
  }
  interface DeliveryDocument {
    topic: string;
    deadline?: number;
    onLate?: "deliver" | "drop" | "dead_letter";
    guarantee: "exactly_once" | "at_least_once";
    headers?: Record<string, string | null>;
    retry?: RetryDocument;
  }
  interface DeliveryForm {
    topic: string;
    deadline?: number | null;
    onLate?: "deliver" | "drop" | "dead_letter" | null;
    guarantee?: "exactly_once" | "at_least_once" | null;
    headers?: Record<string, string> | null;
    retry?: RetryForm | null;
  }
  interface DifferenceDocument {
    setting: string;
    processes: string[][];
  }
  interface DiscardItemDocument {
    status: number;
    deadLetter: DiscardedDocument;
  }
  interface DiscardedDocument {
    clientId: string;
    scheduleKey: string;
    deliveryId: string;
    discardedAt: number;
  }
  interface DiscardsDocument {
    results: (DiscardItemDocument | LetterNotOpenDocument | InvalidDocument)[];
  }
  interface DstDocument {
    gap?: string;
    overlap?: string;
  }
  interface DstForm {
    gap?: "next" | "shift" | "skip" | null;
    overlap?: "first" | "second" | "both" | null;
  }
  interface EntriesDocument {
    dates?: string[];
    annual?: string[];
    weekdays?: string[];
    cron?: string[];
  }
  interface EntriesForm {
    dates?: string[];
    annual?: string[];
    weekdays?: ("SUN" | "MON" | "TUE" | "WED" | "THU" | "FRI" | "SAT")[];
    cron?: string[];
  }
  interface EventDocument {
    at: number;
    kind: "created" | "moved" | "fired" | "cancelled" | "retried" | "delivered" | "refused" | "failed" | "dropped" | "discarded" | "paused" | "resumed" | "fenced" | "batch_cancelled" | "batch_fired" | "batch_retried" | "batch_discarded" | "job_created" | "job_changed" | "job_paused" | "job_resumed" | "job_deleted" | "job_restored" | "job_run" | "job_backfilled";
    clientId?: string;
    scheduleKey?: string;
    jobId?: string;
    runId?: string;
    deliveryId?: string;
    shard?: number;
    topic?: string;
    result?: string;
    lastRefusal?: string;
    latenessMs?: number;
    kafkaPartition?: number;
    offset?: string;
    attempts?: number;
    by?: string;
    count?: number;
    answers?: Record<string, number>;
    reason?: string;
    sampled?: number;
  }
  interface EventsDocument {
    events: EventDocument[];
    cursor: string;
    more: boolean;
    missed?: true;
    asOf: number;
    keptFrom?: number;
  }
  interface ExclusionDocument {
    dates?: string[];
    annual?: string[];
    weekdays?: string[];
    cron?: string[];
    calendar?: string;
  }
  interface ExclusionForm {
    dates?: string[];
    annual?: string[];
    weekdays?: ("SUN" | "MON" | "TUE" | "WED" | "THU" | "FRI" | "SAT")[];
    cron?: string[];
    calendar?: string;
  }
  interface ExportedJobDocument {
    job: Record<string, unknown>;
    origin: JobOriginDocument;
  }
  interface ExportedJobsDocument {
    jobs: ExportedJobDocument[];
    unreadable: number;
    uncovered: number;
    leftBehind: number;
    cursor: string | null;
  }
  interface FailForm {
    attempt?: number;
    startedAt?: number | string | null;
    error?: unknown;
    retry?: boolean;
  }
  interface FailedDocument {
    reason: string;
    at: number;
    attempts: number;
    lastRefusal?: string;
  }
  interface FencedDocument {
    incarnation: string;
    node: string;
    fencedAt: number;
    frontier: number;
    shards: number[];
  }
  interface FieldErrorDocument {
    field: string;
    message: string;
  }
  interface FireItemForm {
    clientId: string;
    scheduleKey: string;
    ifVersion?: number | null;
  }
  interface FireManyForm {
    schedules: FireItemForm[];
    reason?: string | null;
  }
  interface FireTimeDocument {
    at: number;
    local: string;
    dueAt?: number;
    note?: string;
  }
  interface FixedDelayForm {
    start?: number | string | null;
    end?: number | string | null;
    maxRuns?: number;
    jitterMs?: number;
    jitterPer?: "job" | "run";
    type: "fixed_delay";
    delayMs: number;
  }
  interface FixedRateForm {
    start?: number | string | null;
    end?: number | string | null;
    maxRuns?: number;
    jitterMs?: number;
    jitterPer?: "job" | "run";
    type: "fixed_rate";
    everyMs: number;
    anchor?: number | string | null;
  }
  interface FixedRateMemberForm {
    type: "fixed_rate";
    everyMs: number;
    anchor?: number | string | null;
  }
  interface ForecastDocument {
    from: number;
    to: number;
    bucketMs: number;
    asOf: number;
    exact: boolean;
    exactTo: number;
    overdue?: number;
    mostDelivered?: MostDeliveredDocument;
    buckets: BucketDocument[];
    byShard: ShardCountDocument[];
    byTopic: TopicCountDocument[];
    byClient: ClientCountDocument[];
    otherTopics: number;
    otherClients: number;
    lookedAt: number;
    readUnits: number;
  }
  interface FoundDocument {
    q: string;
    results: ScheduleDocument[];
    runs: FoundRunDocument[];
    clientsLookedAt: number;
    clientsAsOf?: number;
    complete: boolean;
  }
  interface FoundRunDocument {
    clientId: string;
    jobId: string;
    runId: string;
  }
  interface GetManyForm {
    schedules: KeyForm[];
  }
  interface HeartbeatDocument {
    runId: string;
    attempt: number;
    until: number;
  }
  interface HeartbeatForm {
    attempt?: number;
    extendMs: number;
  }
  interface HistoryDocument {
    schedules: PastDocument[];
    cursor: string | null;
  }
  interface HoldingPauseDocument {
    name: string;
    since: number;
    by?: string;
    reason?: string;
    kind: "client" | "topic";
  }
  interface ImportJobForm {
    exportedAt: number;
    job: JobForm;
    origin: JobOriginForm;
  }
  interface ImportManyForm {
    exportedAt: number;
    schedules: ImportedForm[];
  }
  interface ImportedForm {
    createdAt: number;
    deliveryId: string;
    version: number;
    origin: OriginForm;
    clientId: string;
    scheduleKey: string;
    orderingKey?: string | null;
    taskDataEncoding?: "json" | "base64" | null;
    scheduleTime: 0 | number | string;
    taskData: unknown;
    delivery: DeliveryForm;
  }
  interface ImportedJobDocument {
    created: boolean;
    job: JobDocument;
  }
  interface InTheWayDocument {
    scheduleTime: number;
    clientId?: string;
    scheduleKey?: string;
    jobId?: string;
    runId?: string;
  }
  interface InternalDocument {
    type: string;
    title: string;
    status: number;
    detail: string;
    errorId?: string;
  }
  interface InvalidDocument {
    type: string;
    title: string;
    status: number;
    detail: string;
    errors?: FieldErrorDocument[];
  }
  interface ItemDocument {
    status: number;
    schedule: ScheduleDocument;
  }
  interface JobChangeForm {
    clientId?: string | null;
    jobId?: string | null;
    orderingKey?: string | null;
    taskDataEncoding?: "json" | "base64" | null;
    description?: string | null;
    labels?: Record<string, string> | null;
    priority?: number | null;
    trigger?: CronForm | RecurrenceForm | FixedRateForm | FixedDelayForm | AnyForm | null;
    taskData?: unknown | null;
    delivery?: DeliveryForm | null;
    misfire?: MisfireForm | null;
    overlap?: "allow" | "skip" | "wait" | null;
    completion?: CompletionForm | null;
    pauseAfterFailures?: number | null;
    durable?: boolean | null;
    interpolate?: boolean | null;
    payloadSchema?: Record<string, unknown> | null;
  }
  interface JobConflictDocument {
    type: string;
    title: string;
    status: number;
    detail: string;
    reason: "exists" | "deleted" | "ended" | "not_deleted" | "running" | "too_many_runs" | "no_fire_times";
    job: JobDocument;
  }
  interface JobDocument {
    clientId: string;
    jobId: string;
    orderingKey?: string;
    taskDataEncoding?: "json" | "base64";
    description?: string;
    labels?: Record<string, string>;
    priority?: number | null;
    trigger?: TriggerDocument;
    taskData?: unknown;
    delivery: DeliveryDocument;
    misfire: MisfireDocument;
    overlap: "allow" | "skip" | "wait";
    completion?: CompletionDocument;
    pauseAfterFailures: number;
    durable: boolean;
    interpolate: boolean;
    payloadSchema?: Record<string, unknown>;
    version: number;
    redacted?: true;
    status: "active" | "paused" | "ended" | "deleted";
    createdAt: number;
    updatedAt: number;
    pausedSince?: number;
    note?: string;
    nextRun?: NextRunDocument;
    lastRun?: RunDocument;
    openRuns?: RunDocument[];
    counts: RunCountsDocument;
    nextTimes?: FireTimeDocument[];
    inFlight?: RunDocument[];
  }
  interface JobForm {
    clientId: string;
    jobId: string;
    orderingKey?: string | null;
    taskDataEncoding?: "json" | "base64" | null;
    description?: string | null;
    labels?: Record<string, string> | null;
    priority?: number | null;
    trigger?: CronForm | RecurrenceForm | FixedRateForm | FixedDelayForm | AnyForm | null;
    taskData: unknown;
    delivery: DeliveryForm;
    misfire?: MisfireForm | null;
    overlap?: "allow" | "skip" | "wait" | null;
    completion?: CompletionForm | null;
    pauseAfterFailures?: number | null;
    durable?: boolean | null;
    interpolate?: boolean | null;
    payloadSchema?: Record<string, unknown> | null;
  }
  interface JobOriginDocument {
    createdAt: number;
    updatedAt: number;
    version: number;
    digest: string;
    cursor: number;
    counts: RunCountsOriginDocument;
    failures: number;
    pausedSince?: number;
    note?: string;
    traceparent?: string;
    calendars?: Record<string, EntriesDocument>;
  }
  interface JobOriginForm {
    createdAt: number;
    updatedAt: number;
    version: number;
    digest: string;
    cursor: number;
    counts: RunCountsOriginForm;
    failures?: number;
    pausedSince?: number | null;
    note?: string | null;
    traceparent?: string | null;
    calendars?: Record<string, EntriesForm>;
  }
  interface JobVersionDocument {
    clientId: string;
    jobId: string;
    orderingKey?: string;
    taskDataEncoding?: "json" | "base64";
    description?: string;
    labels?: Record<string, string>;
    priority?: number | null;
    trigger?: TriggerDocument;
    taskData?: unknown;
    delivery: DeliveryDocument;
    misfire: MisfireDocument;
    overlap: "allow" | "skip" | "wait";
    completion?: CompletionDocument;
    pauseAfterFailures: number;
    durable: boolean;
    interpolate: boolean;
    payloadSchema?: Record<string, unknown>;
    version: number;
    redacted?: true;
    changedAt: number;
    changedBy?: string;
  }
  interface JobsDocument {
    jobs: JobDocument[];
    cursor: string | null;
  }
  interface KeyForm {
    clientId: string;
    scheduleKey: string;
  }
  interface LetterForm {
    clientId: string;
    scheduleKey: string;
    deliveryId: string;
  }
  interface LetterNotOpenDocument {
    type: string;
    title: string;
    status: number;
    detail: string;
    reason: "pending" | "delivered" | "cancelled" | "failed";
  }
  interface LetterRetriesDocument {
    results: (ItemDocument | RunAgainDocument | ConflictDocument | JobConflictDocument | LetterNotOpenDocument | StaleDocument | InvalidDocument)[];
  }
  interface LettersForm {
    deadLetters: (LetterForm | RunLetterForm)[];
    reason?: string | null;
  }
  interface LoginForm {
    key: string;
  }
  interface MeDocument {
    name: string;
    auth: "none" | "keys" | "oidc";
    rights: string[];
    clients: string[];
    topics: string[];
    redacted: boolean;
    cluster: string;
    version: string;
    banner?: string;
    jobs: "on" | "manual" | "off";
    search: "on" | "off";
    links: Record<string, string>;
    session?: SessionDocument;
  }
  interface MinutesDocument {
    from: number;
    to: number;
    stepMs: number;
    asOf: number;
    keptFrom?: number;
    latenessBoundsMs: number[];
    minutes: StepDocument[];
    topics: TopicCountsDocument[];
    waiting: WaitingTopicDocument[];
    otherTopics?: CountsDocument;
  }
  interface MisfireDocument {
    policy: string;
    graceMs?: number;
    maxCatchUp?: number;
    windowMs?: number;
  }
  interface MisfireForm {
    policy?: "skip" | "fire_once" | "fire_all";
    graceMs?: number;
    maxCatchUp?: number;
    windowMs?: number;
  }
  interface MostDeliveredDocument {
    count: number;
    at: number;
    since: number;
  }
  interface NextRunDocument {
    runId: string;
    scheduledAt: number;
    dueAt: number;
    local: string;
    note?: string;
    version: number;
  }
  interface NodeDocument {
    process: string;
    node: string;
    role: string;
    version: string;
    since: number;
    seenAt: number;
    gone: boolean;
    accepts: boolean;
    fires: boolean;
    shards: number;
    assigned: number;
    createdPerSecond: number;
    deliveredPerSecond: number;
    loopLagMs: number;
    clockSkewMs?: number;
    kafka: string | null;
    store: string | null;
    member?: boolean;
  }
  interface NodesDocument {
    asOf: number;
    nodes: NodeDocument[];
    differences: DifferenceDocument[];
    membersWithoutNode: string[];
    membersUnknown?: string;
  }
  interface NothingForm {
  }
  interface OriginDocument {
    position: string;
    digest?: string;
    rearmed?: boolean;
    traceparent?: string;
  }
  interface OriginForm {
    position: string;
    digest?: string;
    rearmed?: boolean;
    traceparent?: string | null;
  }
  interface PageDocument {
    schedules: ScheduleDocument[];
    cursor: string | null;
    lookedAt: number;
  }
  interface PastDocument {
    clientId: string;
    scheduleKey: string;
    orderingKey?: string;
    taskDataEncoding?: "json" | "base64";
    scheduleTime: number;
    taskData?: unknown;
    delivery?: DeliveryDocument;
    createdAt?: number;
    deliveryId?: string;
    delivered?: DeliveredDocument;
    failed?: FailedDocument;
    redacted?: true;
    status: "delivered" | "cancelled" | "failed" | "superseded";
    endedAt: number;
    version?: number;
    movedTo?: number;
  }
  interface PauseForm {
    note?: string | null;
  }
  interface PausedDocument {
    name: string;
    since: number;
    by?: string;
    reason?: string;
  }
  interface PausesDocument {
    clients: PausedDocument[];
    topics: PausedDocument[];
  }
  interface PendingDocument {
    at: number;
    schedules: PendingScheduleDocument[];
    unreadable: number;
    uncovered: number;
    cursor: string | null;
  }
  interface PendingScheduleDocument {
    clientId: string;
    scheduleKey: string;
    orderingKey?: string;
    taskDataEncoding?: "json" | "base64";
    scheduleTime: number;
    taskData?: unknown;
    delivery?: DeliveryDocument;
    createdAt?: number;
    deliveryId?: string;
    delivered?: DeliveredDocument;
    failed?: FailedDocument;
    redacted?: true;
    status: "pending" | "delivered" | "cancelled" | "failed";
    version: number;
    shard: number;
    origin: OriginDocument;
  }
  interface PreviewDocument {
    times: FireTimeDocument[];
  }
  interface PreviewForm {
    trigger: CronForm | RecurrenceForm | FixedRateForm | FixedDelayForm | AnyForm;
    from?: number | string | null;
    count?: number;
    clientId?: string | null;
    jobId?: string | null;
  }
  interface ProblemDocument {
    type: string;
    title: string;
    status: number;
    detail: string;
  }
  interface RateLimitDocument {
    perSecond: number;
    waits: number;
  }
  interface ReadyDocument {
    status: "ready";
    reasons: string[];
    details: Record<string, unknown>;
  }
  interface RearmForm {
    scheduleTime?: 0 | number | string | null;
  }
  interface ReasonForm {
    reason?: string | null;
  }
  interface RecurrenceForm {
    start?: number | string | null;
    end?: number | string | null;
    maxRuns?: number;
    jitterMs?: number;
    jitterPer?: "job" | "run";
    timeZone?: string;
    dst?: DstForm | null;
    exclude?: ExclusionForm | null;
    onExcluded?: "skip" | "next" | "previous";
    type: "rrule";
    rule: string;
  }
  interface RetryDocument {
    attempts: number;
    initialMs: number;
    maxMs: number;
    factor: number;
    jitter: number;
  }
  interface RetryForm {
    attempts?: number | null;
    initialMs?: number | null;
    maxMs?: number | null;
    factor?: number | null;
    jitter?: number | null;
  }
  interface RetryItemForm {
    clientId: string;
    scheduleKey: string;
    ifVersion?: number | null;
    scheduleTime?: 0 | number | string | null;
  }
  interface RetryManyForm {
    schedules: RetryItemForm[];
    reason?: string | null;
  }
  interface RunAgainDocument {
    status: number;
    run: RunDocument;
  }
  interface RunConflictDocument {
    type: string;
    title: string;
    status: number;
    detail: string;
    reason: "timed_out" | "superseded" | "completed" | "failed" | "in_flight" | "not_delivered" | "not_asked" | "not_open" | "deleted";
    run?: RunDocument;
    job?: JobDocument;
  }
  interface RunCountsDocument {
    delivered: number;
    failed: number;
    skipped: number;
  }
  interface RunCountsOriginDocument {
    delivered: number;
    failed: number;
    skipped: number;
    ofTrigger: number;
  }
  interface RunCountsOriginForm {
    delivered: number;
    failed: number;
    skipped: number;
    ofTrigger: number;
  }
  interface RunDeliveredDocument {
    topic: string | null;
    partition: number;
    offset: number | bigint;
    at: number;
    latenessMs: number;
  }
  interface RunDocument {
    status: "armed" | "delivered" | "running" | "completed" | "failed" | "timed_out" | "skipped";
    runId?: string;
    kind?: "scheduled" | "catch_up" | "manual" | "backfill" | "retry";
    version?: number;
    attempt?: number;
    scheduledAt?: number;
    dueAt?: number;
    delivered?: RunDeliveredDocument;
    startedAt?: number;
    finishedAt?: number;
    durationMs?: number;
    result?: unknown;
    error?: unknown;
    reason?: string;
    first?: number;
    last?: number;
    count?: number;
    redacted?: true;
  }
  interface RunLetterForm {
    clientId: string;
    jobId: string;
    deliveryId: string;
    deadLetterTopic: string;
    partition: number;
    offset: number | bigint;
  }
  interface RunNowForm {
    requestId: string;
    taskData?: unknown;
    taskDataEncoding?: "json" | "base64" | null;
  }
  interface RunRetryDocument {
    attempts: number;
    initialMs: number;
    maxMs: number;
    factor: number;
  }
  interface RunRetryForm {
    attempts: number;
    initialMs?: number | null;
    maxMs?: number | null;
    factor?: number | null;
  }
  interface RunsDocument {
    runs: RunDocument[];
    cursor: string | null;
  }
  interface ScheduleDocument {
    clientId: string;
    scheduleKey: string;
    orderingKey?: string;
    taskDataEncoding?: "json" | "base64";
    scheduleTime: number;
    taskData?: unknown;
    delivery?: DeliveryDocument;
    createdAt?: number;
    deliveryId?: string;
    delivered?: DeliveredDocument;
    failed?: FailedDocument;
    redacted?: true;
    status: "pending" | "delivered" | "cancelled" | "failed";
    version: number;
    shard: number;
  }
  interface ScheduleForm {
    clientId: string;
    scheduleKey: string;
    orderingKey?: string | null;
    taskDataEncoding?: "json" | "base64" | null;
    scheduleTime: 0 | number | string;
    taskData: unknown;
    delivery: DeliveryForm;
  }
  interface SessionDocument {
    issuedAt: number;
    endsAt: number;
    unusedUntil: number;
  }
  interface ShardCountDocument {
    shard: number;
    count: number;
  }
  interface ShardDocument {
    shard: number;
    epoch?: number;
    owner?: string;
    floor?: number;
    frontier?: number;
    fencedAt?: number;
    node?: string;
    oldestDue?: number;
    lagMs: number;
    oldestPaused?: true;
    oldestTopic?: string;
    problem?: string;
  }
  interface ShardsDocument {
    shards: ShardDocument[];
  }
  interface StaleCalendarDocument {
    type: string;
    title: string;
    status: number;
    detail: string;
    calendar?: CalendarDocument;
  }
  interface StaleDocument {
    type: string;
    title: string;
    status: number;
    detail: string;
    schedule: ScheduleDocument;
  }
  interface StaleJobDocument {
    type: string;
    title: string;
    status: number;
    detail: string;
    job: JobDocument;
  }
  interface StepDocument {
    created: number;
    cancelled: number;
    moved: number;
    delivered: number;
    retried: number;
    failed: number;
    lateness: number[];
    at: number;
    processes?: number;
    loopLagMs?: number;
  }
  interface TopicCountDocument {
    topic: string;
    count: number;
  }
  interface TopicCountsDocument {
    created: number;
    cancelled: number;
    moved: number;
    delivered: number;
    retried: number;
    failed: number;
    lateness: number[];
    topic: string;
    rateLimit?: RateLimitDocument;
  }
  interface TriggerDocument {
    type: string;
    expression?: string;
    dialect?: string;
    timeZone?: string;
    days?: string;
    dst?: DstDocument;
    exclude?: ExclusionDocument;
    onExcluded?: string;
    rule?: string;
    everyMs?: number;
    anchor?: number;
    delayMs?: number;
    of?: TriggerDocument[];
    start?: number;
    end?: number;
    maxRuns?: number;
    jitterMs?: number;
    jitterPer?: string;
  }
  interface UnreadyDocument {
    type: string;
    title: string;
    status: number;
    detail: string;
    reasons?: string[];
    details?: Record<string, unknown>;
  }
  interface UpcomingDocument {
    schedules: UpcomingScheduleDocument[];
    cursor: string | null;
    asOf: number;
    lookedAt: number;
  }
  interface UpcomingScheduleDocument {
    clientId: string;
    scheduleKey: string;
    orderingKey?: string;
    taskDataEncoding?: "json" | "base64";
    scheduleTime: number;
    taskData?: unknown;
    delivery?: DeliveryDocument;
    createdAt?: number;
    deliveryId?: string;
    delivered?: DeliveredDocument;
    failed?: FailedDocument;
    redacted?: true;
    status: "pending" | "delivered" | "cancelled" | "failed";
    version: number;
    shard: number;
    jobId?: string;
    runId?: string;
  }
  interface VersionsDocument {
    versions: JobVersionDocument[];
    cursor: string | null;
  }
  interface WaitingDestinationDocument {
    topic: string;
    reason: string;
    since?: number;
    nextProbeAt?: number;
  }
  interface WaitingRetryDocument {
    attempts: number;
    nextAt: number;
    lastRefusal?: string;
  }
  interface WaitingTopicDocument {
    topic: string;
    since: number;
    reason: string;
  }
  interface WhyDocument {
    clientId: string;
    scheduleKey: string;
    asOf: number;
    status: "pending" | "delivered" | "cancelled" | "failed";
    version: number;
    shard: number;
    scheduleTime: number;
    topic?: string;
    reason: "ended" | "not_due" | "paused" | "shard_without_owner" | "shard_behind" | "destination_waits" | "retry" | "behind" | "due_now" | "unknown";
    text: string;
    advice: string;
    endedAt?: number;
    delivered?: DeliveredDocument;
    failed?: FailedDocument;
    dueInMs?: number;
    paused?: HoldingPauseDocument;
    lagMs?: number;
    destination?: WaitingDestinationDocument;
    retry?: WaitingRetryDocument;
    behind?: InTheWayDocument;
    lookedAt: number;
    lookedAtAll: boolean;
  }

  /** By method and path: the names of the query's parameters, the body, and the answer of a success. */
  interface Calls {
    DELETE: {
      "/admin/pauses/clients/{clientId}": { query: never; body: never; answer: PausesDocument };
      "/admin/pauses/topics/{topic}": { query: never; body: never; answer: PausesDocument };
      "/calendars/{clientId}/{calendar}": { query: never; body: never; answer: CalendarDocument };
      "/jobs/{clientId}/{jobId}": { query: never; body: never; answer: JobDocument };
      "/schedule": { query: never; body: KeyForm; answer: ScheduleDocument };
      "/schedule/{clientId}/{scheduleKey}": { query: never; body: never; answer: ScheduleDocument };
      "/session": { query: never; body: never; answer: null };
    };
    GET: {
      "/admin/dead-letters": { query: "limit" | "cursor" | "deadLetterTopic"; body: never; answer: DeadLettersDocument };
      "/admin/dead-letters/{partition}/{offset}": { query: "deadLetterTopic"; body: never; answer: DeadLetterDocument };
      "/admin/jobs": { query: "clientId" | "limit" | "cursor"; body: never; answer: ExportedJobsDocument };
      "/admin/nodes": { query: never; body: never; answer: NodesDocument };
      "/admin/pauses": { query: never; body: never; answer: PausesDocument };
      "/admin/schedules": { query: "clientId" | "dueFrom" | "dueTo" | "limit" | "cursor"; body: never; answer: PendingDocument };
      "/admin/shards": { query: never; body: never; answer: ShardsDocument };
      "/calendars": { query: "clientId" | "limit" | "cursor"; body: never; answer: CalendarsDocument };
      "/calendars/{clientId}/{calendar}": { query: never; body: never; answer: CalendarDocument };
      "/clients": { query: never; body: never; answer: ClientsDocument };
      "/docs": { query: never; body: never; answer: null };
      "/docs/{file}": { query: never; body: never; answer: null };
      "/events": { query: "cursor" | "from" | "kind" | "clientId" | "scheduleKey" | "topic" | "result" | "limit"; body: never; answer: EventsDocument };
      "/forecast": { query: "from" | "to" | "bucketMs" | "clientId" | "topic"; body: never; answer: ForecastDocument };
      "/jobs": { query: "clientId" | "status" | "topic" | "label" | "deleted" | "limit" | "cursor"; body: never; answer: JobsDocument };
      "/jobs/{clientId}/{jobId}": { query: "next"; body: never; answer: JobDocument };
      "/jobs/{clientId}/{jobId}/logs": { query: "from" | "to" | "status" | "limit" | "cursor"; body: never; answer: RunsDocument };
      "/jobs/{clientId}/{jobId}/runs/{runId}": { query: never; body: never; answer: RunDocument };
      "/jobs/{clientId}/{jobId}/versions": { query: "limit" | "cursor"; body: never; answer: VersionsDocument };
      "/jobs/{clientId}/{jobId}/versions/{version}": { query: never; body: never; answer: JobVersionDocument };
      "/livez": { query: never; body: never; answer: AliveDocument };
      "/me": { query: never; body: never; answer: MeDocument };
      "/metrics": { query: never; body: never; answer: null };
      "/minutes": { query: "from" | "to" | "stepMs" | "topic"; body: never; answer: MinutesDocument };
      "/openapi.json": { query: never; body: never; answer: unknown };
      "/readyz": { query: never; body: never; answer: ReadyDocument };
      "/schedule/{clientId}/{scheduleKey}": { query: "taskData"; body: never; answer: ScheduleDocument };
      "/schedule/{clientId}/{scheduleKey}/history": { query: "fields" | "taskData" | "limit" | "cursor"; body: never; answer: HistoryDocument };
      "/schedule/{clientId}/{scheduleKey}/why": { query: never; body: never; answer: WhyDocument };
      "/schedules": { query: "clientId" | "status" | "topic" | "orderingKey" | "dueFrom" | "dueTo" | "order" | "fields" | "taskData" | "limit" | "cursor"; body: never; answer: PageDocument };
      "/search": { query: "q"; body: never; answer: FoundDocument };
      "/session/callback": { query: never; body: never; answer: never };
      "/session/login": { query: "next"; body: never; answer: never };
      "/upcoming": { query: "clientId" | "topic" | "dueFrom" | "dueTo" | "limit" | "cursor"; body: never; answer: UpcomingDocument };
    };
    POST: {
      "/admin/dead-letters/discard": { query: never; body: LettersForm; answer: DiscardsDocument };
      "/admin/dead-letters/retry": { query: never; body: LettersForm; answer: LetterRetriesDocument };
      "/admin/jobs": { query: never; body: ImportJobForm; answer: ImportedJobDocument };
      "/admin/schedules": { query: never; body: ImportManyForm; answer: BatchDocument };
      "/admin/shards/{shard}/fence": { query: never; body: ReasonForm; answer: FencedDocument };
      "/jobs": { query: never; body: JobForm; answer: JobDocument };
      "/jobs/preview": { query: never; body: PreviewForm; answer: PreviewDocument };
      "/jobs/{clientId}/{jobId}/backfill": { query: never; body: BackfillForm; answer: BackfillDocument };
      "/jobs/{clientId}/{jobId}/pause": { query: never; body: PauseForm; answer: JobDocument };
      "/jobs/{clientId}/{jobId}/restore": { query: never; body: NothingForm; answer: JobDocument };
      "/jobs/{clientId}/{jobId}/resume": { query: never; body: NothingForm; answer: JobDocument };
      "/jobs/{clientId}/{jobId}/run-now": { query: never; body: RunNowForm; answer: RunDocument };
      "/jobs/{clientId}/{jobId}/runs/{runId}/complete": { query: never; body: CompleteForm; answer: RunDocument };
      "/jobs/{clientId}/{jobId}/runs/{runId}/fail": { query: never; body: FailForm; answer: RunDocument };
      "/jobs/{clientId}/{jobId}/runs/{runId}/heartbeat": { query: never; body: HeartbeatForm; answer: HeartbeatDocument };
      "/schedule": { query: never; body: ScheduleForm; answer: ScheduleDocument };
      "/schedule/{clientId}/{scheduleKey}/fire": { query: never; body: NothingForm; answer: ScheduleDocument };
      "/schedule/{clientId}/{scheduleKey}/retry": { query: never; body: RearmForm; answer: ScheduleDocument };
      "/schedules": { query: never; body: CreateManyForm; answer: BatchDocument };
      "/schedules/cancel": { query: never; body: CancelManyForm; answer: BatchDocument };
      "/schedules/fire": { query: never; body: FireManyForm; answer: BatchDocument };
      "/schedules/get": { query: "fields" | "taskData"; body: GetManyForm; answer: BatchDocument };
      "/schedules/retry": { query: never; body: RetryManyForm; answer: BatchDocument };
      "/session": { query: never; body: LoginForm; answer: MeDocument };
    };
    PUT: {
      "/admin/pauses/clients/{clientId}": { query: never; body: ReasonForm; answer: PausesDocument };
      "/admin/pauses/topics/{topic}": { query: never; body: ReasonForm; answer: PausesDocument };
      "/calendars/{clientId}/{calendar}": { query: never; body: CalendarForm; answer: CalendarDocument };
      "/jobs/{clientId}/{jobId}": { query: never; body: JobChangeForm; answer: JobDocument };
      "/schedule/{clientId}/{scheduleKey}": { query: never; body: ChangeForm; answer: ScheduleDocument };
    };
  }

  /** A path with names in it is called by its template: what makes such a path gives it the template's type. */
  type Path<M extends keyof Calls> = keyof Calls[M] & string;
  /** What is empty is not sent. */
  type Parameter = string | number | boolean | null | undefined;
  type Query<M extends keyof Calls, P extends Path<M>> =
    Calls[M][P] extends { query: infer Q extends string } ? Partial<Record<Q, Parameter>> : never;
  type Body<M extends keyof Calls, P extends Path<M>> = Calls[M][P] extends { body: infer B } ? B : never;
  type Answer<M extends keyof Calls, P extends Path<M>> = Calls[M][P] extends { answer: infer A } ? A : never;
}
