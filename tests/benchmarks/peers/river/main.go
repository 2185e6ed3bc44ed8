// Command river is River as a peer of Clockwork: a due job sends one record to Kafka and waits for its acknowledgement.
//
//	river DATABASE-URL SCHEMA BROKERS
//
// Each line of standard input is one request (create key=value ...), each line of standard output its answer; the protocol
// is described in tests/benchmarks/peers/driver.py.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
)

const (
	connections = 16
	// eventsWaiting is how many completions may wait to be counted; beyond it River would drop them.
	eventsWaiting = 200_000
)

var payload = `{"note":"` + strings.Repeat("x", 200) + `"}`

// delivery is the job.
type delivery struct {
	Topic   string `json:"topic"`
	Key     string `json:"key"`
	Payload string `json:"payload"`
}

func (delivery) Kind() string { return "delivery" }

type sender struct {
	river.WorkerDefaults[delivery]
	producer *kgo.Client
}

func (s *sender) Work(ctx context.Context, job *river.Job[delivery]) error {
	key := []byte(job.Args.Key)
	record := &kgo.Record{
		Topic: job.Args.Topic,
		Key:   key,
		Value: []byte(job.Args.Payload),
		Headers: []kgo.RecordHeader{
			{Key: "clockwork-schedule-key", Value: key},
			{Key: "clockwork-schedule-time", Value: []byte(strconv.FormatInt(job.ScheduledAt.UnixMilli(), 10))},
		},
	}
	return s.producer.ProduceSync(ctx, record).FirstErr()
}

type driver struct {
	pool      *pgxpool.Pool
	schema    string
	workers   *river.Workers
	inserting *river.Client[pgx.Tx]
	working   *river.Client[pgx.Tx]
	completed atomic.Int64
}

func opened(ctx context.Context, url, schema, brokers string) (*driver, error) {
	settings, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	settings.MaxConns = connections
	pool, err := pgxpool.NewWithConfig(ctx, settings)
	if err != nil {
		return nil, err
	}
	if _, err := pool.Exec(ctx, "CREATE SCHEMA "+pgx.Identifier{schema}.Sanitize()); err != nil {
		return nil, err
	}
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Schema: schema, Logger: logger()})
	if err != nil {
		return nil, err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return nil, err
	}
	// Acknowledged by all replicas, and idempotent: both are the library's defaults.
	producer, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(brokers, ",")...),
		kgo.ProducerLinger(0),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
	)
	if err != nil {
		return nil, err
	}
	workers := river.NewWorkers()
	river.AddWorker(workers, &sender{producer: producer})
	inserting, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Schema: schema, Workers: workers, Logger: logger()})
	if err != nil {
		return nil, err
	}
	return &driver{pool: pool, schema: schema, workers: workers, inserting: inserting}, nil
}

func logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func (d *driver) answer(ctx context.Context, verb string, values map[string]string) (string, error) {
	switch verb {
	case "create":
		seconds, err := d.create(ctx, values)
		return strconv.FormatFloat(seconds, 'f', 6, 64), err
	case "start":
		return "", d.start(ctx, values)
	case "stop":
		return "", d.working.Stop(ctx)
	case "completed":
		return strconv.FormatInt(d.completed.Load(), 10), nil
	default:
		return "", fmt.Errorf("no such request: %s", verb)
	}
}

// start works due jobs; what is not given is as River has it by default.
func (d *driver) start(ctx context.Context, values map[string]string) error {
	working, err := river.NewClient(riverpgxv5.New(d.pool), &river.Config{
		FetchCooldown:     time.Duration(number(values, "cooldown-ms")) * time.Millisecond,
		FetchPollInterval: time.Duration(number(values, "poll-ms")) * time.Millisecond,
		Logger:            logger(),
		Queues:            map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: int(number(values, "workers"))}},
		Schema:            d.schema,
		Workers:           d.workers,
	})
	if err != nil {
		return err
	}
	events, _ := working.SubscribeConfig(&river.SubscribeConfig{
		ChanSize: eventsWaiting,
		Kinds:    []river.EventKind{river.EventKindJobCompleted},
	})
	go func() {
		for range events {
			d.completed.Add(1)
		}
	}()
	d.working = working
	return working.Start(ctx)
}

// create is answered with the seconds that the creates took.
func (d *driver) create(ctx context.Context, values map[string]string) (float64, error) {
	count, batch := int(number(values, "count")), int(number(values, "batch"))
	perSecond := float64(number(values, "per-second"))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(int(number(values, "callers")))
	start := time.Now()
	for first := 0; first < count; first += batch {
		if perSecond > 0 {
			time.Sleep(time.Until(start.Add(time.Duration(float64(first) / perSecond * float64(time.Second)))))
		}
		group.Go(func() error { return d.createBatch(ctx, values, first, min(count, first+batch)) })
	}
	err := group.Wait()
	return time.Since(start).Seconds(), err
}

func (d *driver) createBatch(ctx context.Context, values map[string]string, from, to int) error {
	jobs := make([]river.InsertManyParams, 0, to-from)
	nowMs := time.Now().UnixMilli()
	for n := from; n < to; n++ {
		at := number(values, "due-ms")
		if at == 0 {
			at = nowMs + number(values, "ahead-ms") + int64(n)*7919%(number(values, "spread-ms")+1)
		}
		jobs = append(jobs, river.InsertManyParams{
			Args:       delivery{Topic: values["topic"], Key: fmt.Sprintf("%s-%d", values["prefix"], n), Payload: payload},
			InsertOpts: &river.InsertOpts{ScheduledAt: time.UnixMilli(at)},
		})
	}
	if len(jobs) == 1 {
		_, err := d.inserting.Insert(ctx, jobs[0].Args, jobs[0].InsertOpts)
		return err
	}
	inserted, err := d.inserting.InsertManyFast(ctx, jobs)
	if err == nil && inserted != len(jobs) {
		return fmt.Errorf("%d of %d inserted", inserted, len(jobs))
	}
	return err
}

// number is 0 if the value is not given.
func number(values map[string]string, name string) int64 {
	text, given := values[name]
	if !given {
		return 0
	}
	value, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		panic(fmt.Errorf("%s: %w", name, err))
	}
	return value
}

func run(ctx context.Context, arguments []string) error {
	if len(arguments) != 3 {
		return errors.New("river DATABASE-URL SCHEMA BROKERS")
	}
	d, err := opened(ctx, arguments[0], arguments[1], arguments[2])
	if err != nil {
		return err
	}
	fmt.Println("ok ready")
	requests := bufio.NewScanner(os.Stdin)
	for requests.Scan() {
		words := strings.Split(requests.Text(), " ")
		values := map[string]string{}
		for _, word := range words[1:] {
			name, value, _ := strings.Cut(word, "=")
			values[name] = value
		}
		if answer, err := d.answer(ctx, words[0], values); err != nil {
			fmt.Println("error", strings.ReplaceAll(err.Error(), "\n", " "))
		} else {
			fmt.Println("ok", answer)
		}
	}
	return requests.Err()
}

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
