import com.github.kagkarlsson.scheduler.Scheduler;
import com.github.kagkarlsson.scheduler.SchedulerClient;
import com.github.kagkarlsson.scheduler.event.AbstractSchedulerListener;
import com.github.kagkarlsson.scheduler.serializer.Serializer;
import com.github.kagkarlsson.scheduler.task.ExecutionComplete;
import com.github.kagkarlsson.scheduler.task.SchedulableInstance;
import com.github.kagkarlsson.scheduler.task.TaskInstance;
import com.github.kagkarlsson.scheduler.task.helper.OneTimeTask;
import com.github.kagkarlsson.scheduler.task.helper.Tasks;
import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * db-scheduler as a peer of Clockwork: a due execution sends one record to Kafka and waits for its acknowledgement.
 *
 * <p>{@code Driver JDBC-URL USER SCHEMA BROKERS}. Each line of standard input is one request ({@code create key=value …}),
 * each line of standard output its answer; the protocol is described in tests/benchmarks/peers/driver.py.
 */
public final class Driver {
  private static final String PAYLOAD = "{\"note\":\"" + "x".repeat(200) + "\"}";
  private static final int CONNECTIONS = 16;

  /** Data is text: its bytes go into the row as they are, which is the cheapest serializer that there can be. */
  private static final class TextSerializer implements Serializer {
    @Override
    public byte[] serialize(Object data) {
      return data == null ? null : data.toString().getBytes(StandardCharsets.UTF_8);
    }

    @Override
    public <T> T deserialize(Class<T> type, byte[] bytes) {
      return bytes == null ? null : type.cast(new String(bytes, StandardCharsets.UTF_8));
    }
  }

  private final HikariDataSource database;
  private final KafkaProducer<byte[], byte[]> producer;
  private final OneTimeTask<String> delivery;
  private final SchedulerClient client;
  private final AtomicLong completed = new AtomicLong();
  private Scheduler scheduler;

  private Driver(String url, String user, String schema, String brokers) throws SQLException {
    HikariConfig pool = new HikariConfig();
    pool.setJdbcUrl(url);
    pool.setUsername(user);
    pool.setSchema(schema);
    pool.setMaximumPoolSize(CONNECTIONS);
    // Batches of inserts become statements of many rows: the PostgreSQL driver's own advice.
    pool.addDataSourceProperty("reWriteBatchedInserts", "true");
    database = new HikariDataSource(pool);
    producer =
        new KafkaProducer<>(
            Map.of("bootstrap.servers", brokers, "acks", "all", "enable.idempotence", true, "linger.ms", 0),
            new ByteArraySerializer(),
            new ByteArraySerializer());
    // The data is the topic's name, a space, and the payload.
    delivery =
        Tasks.oneTime("delivery", String.class)
            .execute((instance, context) -> send(instance, context.getExecution().executionTime));
    createTable(schema);
    client = SchedulerClient.Builder.create(database, delivery).serializer(new TextSerializer()).build();
  }

  private void createTable(String schema) throws SQLException {
    try (Connection connection = database.getConnection();
        Statement statement = connection.createStatement()) {
      statement.execute("CREATE SCHEMA " + schema);
      // The columns that the library reads and writes, and the indexes that its manual recommends.
      statement.execute(
          "CREATE TABLE scheduled_tasks (task_name text NOT NULL, task_instance text NOT NULL, task_data bytea,"
              + " execution_time timestamptz, picked boolean NOT NULL, picked_by text, last_success timestamptz,"
              + " last_failure timestamptz, consecutive_failures int, last_heartbeat timestamptz,"
              + " version bigint NOT NULL, priority smallint, state text, PRIMARY KEY (task_name, task_instance))");
      statement.execute("CREATE INDEX execution_time_idx ON scheduled_tasks (execution_time)");
      statement.execute("CREATE INDEX last_heartbeat_idx ON scheduled_tasks (last_heartbeat)");
    }
  }

  private void send(TaskInstance<String> instance, Instant due) {
    String data = instance.getData();
    int space = data.indexOf(' ');
    byte[] key = bytes(instance.getId());
    ProducerRecord<byte[], byte[]> record =
        new ProducerRecord<>(data.substring(0, space), key, bytes(data.substring(space + 1)));
    record.headers().add("clockwork-schedule-key", key);
    record.headers().add("clockwork-schedule-time", bytes(Long.toString(due.toEpochMilli())));
    try {
      producer.send(record).get();
    } catch (InterruptedException | ExecutionException error) {
      throw new IllegalStateException(error);
    }
  }

  private String answer(String verb, Map<String, String> values) throws InterruptedException, ExecutionException {
    switch (verb) {
      case "create":
        return Double.toString(create(values));
      case "start":
        start(values);
        return "";
      case "stop":
        scheduler.stop();
        return "";
      case "completed":
        return Long.toString(completed.get());
      default:
        throw new IllegalArgumentException("no such request: " + verb);
    }
  }

  private void start(Map<String, String> values) {
    scheduler =
        Scheduler.create(database, delivery)
            .serializer(new TextSerializer())
            .threads(Integer.parseInt(values.get("threads")))
            .pollingInterval(Duration.ofMillis(Long.parseLong(values.get("poll-ms"))))
            .pollUsingLockAndFetch(
                Double.parseDouble(values.get("lower")), Double.parseDouble(values.get("upper")))
            .addSchedulerListener(
                new AbstractSchedulerListener() {
                  @Override
                  public void onExecutionComplete(ExecutionComplete event) {
                    // It is told after the row's deletion.
                    if (event.getResult() == ExecutionComplete.Result.OK) {
                      completed.incrementAndGet();
                    }
                  }
                })
            .build();
    scheduler.start();
  }

  /** Seconds that the creates took. */
  private double create(Map<String, String> values) throws InterruptedException, ExecutionException {
    int count = Integer.parseInt(values.get("count"));
    int batch = Integer.parseInt(values.get("batch"));
    double perSecond = Double.parseDouble(values.get("per-second"));
    ExecutorService callers = Executors.newFixedThreadPool(Integer.parseInt(values.get("callers")));
    List<Future<?>> calls = new ArrayList<>();
    long start = System.nanoTime();
    for (int first = 0; first < count; first += batch) {
      if (perSecond > 0) {
        long ahead = start + (long) (first / perSecond * 1e9) - System.nanoTime();
        TimeUnit.NANOSECONDS.sleep(Math.max(0, ahead));
      }
      int from = first;
      calls.add(callers.submit(() -> createBatch(values, from, Math.min(count, from + batch))));
    }
    for (Future<?> call : calls) {
      call.get();
    }
    callers.shutdown();
    return (System.nanoTime() - start) / 1e9;
  }

  private void createBatch(Map<String, String> values, int from, int to) {
    long dueMs = Long.parseLong(values.get("due-ms"));
    long aheadMs = Long.parseLong(values.get("ahead-ms"));
    long spreadMs = Long.parseLong(values.get("spread-ms"));
    long nowMs = System.currentTimeMillis();
    List<SchedulableInstance<?>> batch = new ArrayList<>(to - from);
    for (int n = from; n < to; n++) {
      long at = dueMs > 0 ? dueMs : nowMs + aheadMs + n * 7919L % (spreadMs + 1);
      String data = values.get("topic") + " " + PAYLOAD;
      TaskInstance<String> instance = delivery.instance(values.get("prefix") + "-" + n, data);
      batch.add(SchedulableInstance.of(instance, Instant.ofEpochMilli(at)));
    }
    if (batch.size() == 1) {
      client.scheduleIfNotExists(batch.get(0));
    } else {
      client.scheduleBatch(batch);
    }
  }

  private static byte[] bytes(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }

  public static void main(String[] arguments) throws SQLException, IOException {
    Driver driver = new Driver(arguments[0], arguments[1], arguments[2], arguments[3]);
    BufferedReader requests = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    System.out.println("ok ready");
    for (String line = requests.readLine(); line != null; line = requests.readLine()) {
      String[] words = line.split(" ");
      Map<String, String> values = new HashMap<>();
      for (int n = 1; n < words.length; n++) {
        values.put(words[n].substring(0, words[n].indexOf('=')), words[n].substring(words[n].indexOf('=') + 1));
      }
      try {
        System.out.println("ok " + driver.answer(words[0], values));
      } catch (RuntimeException | InterruptedException | ExecutionException error) {
        System.out.println("error " + error.toString().replace('\n', ' '));
      }
    }
    System.exit(0);
  }
}
