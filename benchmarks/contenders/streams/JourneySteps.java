import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.LongAdder;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.RocksDBConfigSetter;
import org.apache.kafka.streams.state.Stores;
import org.rocksdb.BlockBasedTableConfig;
import org.rocksdb.LRUCache;
import org.rocksdb.Options;
import org.rocksdb.RocksDB;
import org.rocksdb.WriteBufferManager;

/**
 * The journey steps as a Kafka Streams Processor with a persistent store, exactly_once_v2.
 *
 * Events are read by a streaming parser that skips what no step needs; the state is written byte by byte. With `timers`,
 * a second store holds who waits until when, and a punctuator ends waits of users who aren't heard from, as an engine has
 * to; without, a wait is only judged when its user comes back.
 */
public final class JourneySteps {
    static final long TIMEOUT = 30 * 60_000L;
    static final long REENTRY = 24 * 3_600_000L;
    static final int REMEMBERED = 32;
    static final LongAdder folded = new LongAdder();

    public static void main(String[] given) throws Exception {
        Map<String, String> options = new LinkedHashMap<>();
        for (int index = 0; index < given.length; index += 2) options.put(given[index].substring(2), given[index + 1]);
        boolean timers = options.get("timers").equals("yes");

        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, options.get("app"));
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, options.get("bootstrap"));
        settings.put(StreamsConfig.STATE_DIR_CONFIG, options.get("data"));
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, options.get("commit-ms"));
        settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 64 << 20);
        settings.put(StreamsConfig.ROCKSDB_CONFIG_SETTER_CLASS_CONFIG, BoundedMemory.class);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);

        KafkaStreams streams = new KafkaStreams(topology(options.get("topic"), options.get("commands"), timers), settings);
        CountDownLatch ended = new CountDownLatch(1);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            Runtime.getRuntime().halt(1);
            return null;
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            streams.close(Duration.ofSeconds(20));
            ended.countDown();
        }));
        streams.start();
        while (!ended.await(200, java.util.concurrent.TimeUnit.MILLISECONDS)) System.out.println(folded.sum());
    }

    static Topology topology(String events, String commands, boolean timers) {
        Topology topology = new Topology();
        topology.addSource("events", Serdes.Bytes().deserializer(), Serdes.ByteArray().deserializer(), events);
        topology.addProcessor("steps", () -> new Steps(timers), "events");
        topology.addStateStore(store("users"), "steps");
        if (timers) topology.addStateStore(store("timers"), "steps");
        topology.addSink("commands", commands, Serdes.Bytes().serializer(), Serdes.ByteArray().serializer(), "steps");
        return topology;
    }

    private static org.apache.kafka.streams.state.StoreBuilder<KeyValueStore<Bytes, byte[]>> store(String name) {
        return Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore(name), Serdes.Bytes(), Serdes.ByteArray())
            .withCachingEnabled();
    }

    static final class Steps implements Processor<Bytes, byte[], Bytes, byte[]> {
        private final boolean timers;
        private ProcessorContext<Bytes, byte[]> context;
        private KeyValueStore<Bytes, byte[]> users;
        private KeyValueStore<Bytes, byte[]> waiting;

        Steps(boolean timers) {
            this.timers = timers;
        }

        @Override
        public void init(ProcessorContext<Bytes, byte[]> context) {
            this.context = context;
            users = context.getStateStore("users");
            if (timers) {
                waiting = context.getStateStore("timers");
                context.schedule(Duration.ofMinutes(1), PunctuationType.STREAM_TIME, this::endWaits);
            }
        }

        @Override
        public void process(Record<Bytes, byte[]> record) {
            Event event = Event.read(record.value());
            byte[] stored = users.get(record.key());
            User user = stored == null ? new User() : User.read(stored);
            if (user.remembers(event.id)) {
                folded.increment();
                return;
            }
            if (event.profile != null) user.profile.putAll(event.profile);
            long now = record.timestamp();
            if (user.waitingSince != 0 && now >= user.waitingSince + TIMEOUT) endWait(user, record.key());
            if (event.name.equals("order") && user.waitingSince != 0) {
                endWait(user, record.key());
                String tier = user.profile.get("tier");
                String country = user.profile.get("country");
                if (tier != null) {
                    boolean gold = tier.equals("gold") && ("DE".equals(country) || "FR".equals(country));
                    send(record, user, gold ? "thanks_gold" : "thanks");
                }
            } else if (event.name.equals("cart") && user.waitingSince == 0
                && (user.enteredAt == 0 || now >= user.enteredAt + REENTRY)) {
                user.waitingSince = user.enteredAt = now;
                user.runs++;
                if (timers) waiting.put(due(user.waitingSince + TIMEOUT, record.key()), new byte[] {1});
            }
            users.put(record.key(), user.write());
            folded.increment();
        }

        private void endWait(User user, Bytes key) {
            if (timers) waiting.delete(due(user.waitingSince + TIMEOUT, key));
            user.waitingSince = 0;
        }

        private void endWaits(long now) {
            try (KeyValueIterator<Bytes, byte[]> due = waiting.range(null, due(now + 1, Bytes.wrap(new byte[0])))) {
                while (due.hasNext()) {
                    KeyValue<Bytes, byte[]> entry = due.next();
                    byte[] raw = entry.key.get();
                    Bytes key = Bytes.wrap(java.util.Arrays.copyOfRange(raw, 8, raw.length));
                    User user = User.read(users.get(key));
                    user.waitingSince = 0;
                    users.put(key, user.write());
                    waiting.delete(entry.key);
                }
            }
        }

        private static Bytes due(long at, Bytes key) {
            return Bytes.wrap(ByteBuffer.allocate(8 + key.get().length).putLong(at).put(key.get()).array());
        }

        private void send(Record<Bytes, byte[]> record, User user, String template) {
            String key = new String(record.key().get(), StandardCharsets.UTF_8);
            int colon = key.indexOf(':');
            ByteArrayOutputStream out = new ByteArrayOutputStream(300);
            try (JsonGenerator json = JSON.createGenerator(out)) {
                json.writeStartObject();
                json.writeStringField("id", key + ":" + user.runs);
                json.writeStringField("tenant", key.substring(0, colon));
                json.writeStringField("user", key.substring(colon + 1));
                json.writeStringField("template", template);
                json.writeNumberField("requested_at", record.timestamp());
                json.writeObjectFieldStart("profile");
                for (Map.Entry<String, String> each : user.profile.entrySet())
                    json.writeStringField(each.getKey(), each.getValue());
                json.writeEndObject();
                json.writeEndObject();
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
            context.forward(record.withValue(out.toByteArray()));
        }
    }

    static final JsonFactory JSON = new JsonFactory();

    static final class Event {
        String id;
        String name;
        Map<String, String> profile;

        static Event read(byte[] value) {
            Event event = new Event();
            try (JsonParser json = JSON.createParser(value)) {
                json.nextToken();
                while (json.nextToken() == JsonToken.FIELD_NAME) {
                    String field = json.currentName();
                    json.nextToken();
                    switch (field) {
                        case "id" -> event.id = json.getText();
                        case "name" -> event.name = json.getText();
                        case "profile" -> {
                            event.profile = new LinkedHashMap<>();
                            while (json.nextToken() == JsonToken.FIELD_NAME) {
                                String attribute = json.currentName();
                                event.profile.put(attribute, json.nextTextValue());
                            }
                        }
                        default -> json.skipChildren();
                    }
                }
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
            return event;
        }
    }

    static final class User {
        long waitingSince;
        long enteredAt;
        int runs;
        int seen;
        final long[] ids = new long[REMEMBERED];
        final Map<String, String> profile = new LinkedHashMap<>();

        /** Whether the id is among the last ones; from now on it is. */
        boolean remembers(String id) {
            long hash = 0xcbf29ce484222325L;
            for (int index = 0; index < id.length(); index++) hash = (hash ^ id.charAt(index)) * 0x100000001b3L;
            for (int index = 0; index < seen; index++) if (ids[index] == hash) return true;
            if (seen == REMEMBERED) System.arraycopy(ids, 1, ids, 0, --seen);
            ids[seen++] = hash;
            return false;
        }

        static User read(byte[] stored) {
            ByteBuffer from = ByteBuffer.wrap(stored);
            User user = new User();
            user.waitingSince = from.getLong();
            user.enteredAt = from.getLong();
            user.runs = from.getInt();
            user.seen = from.get();
            for (int index = 0; index < user.seen; index++) user.ids[index] = from.getLong();
            for (int left = from.get(); left > 0; left--) user.profile.put(text(from), text(from));
            return user;
        }

        byte[] write() {
            ByteBuffer to = ByteBuffer.allocate(4096);
            to.putLong(waitingSince).putLong(enteredAt).putInt(runs).put((byte) seen);
            for (int index = 0; index < seen; index++) to.putLong(ids[index]);
            to.put((byte) profile.size());
            profile.forEach((name, value) -> {
                put(to, name);
                put(to, value);
            });
            return java.util.Arrays.copyOf(to.array(), to.position());
        }

        private static String text(ByteBuffer from) {
            int length = from.getShort();
            String text = new String(from.array(), from.position(), length, StandardCharsets.UTF_8);
            from.position(from.position() + length);
            return text;
        }

        private static void put(ByteBuffer to, String text) {
            byte[] raw = text.getBytes(StandardCharsets.UTF_8);
            to.putShort((short) raw.length).put(raw);
        }
    }

    /** One block cache and one budget for memtables for all stores of the process, as its documentation advises. */
    public static final class BoundedMemory implements RocksDBConfigSetter {
        static {
            RocksDB.loadLibrary();
        }

        private static final LRUCache CACHE = new LRUCache(64 << 20, -1, false, 0.1);
        private static final WriteBufferManager MEMTABLES = new WriteBufferManager(32 << 20, CACHE);

        @Override
        public void setConfig(String store, Options options, Map<String, Object> settings) {
            BlockBasedTableConfig table = (BlockBasedTableConfig) options.tableFormatConfig();
            table.setBlockCache(CACHE);
            table.setCacheIndexAndFilterBlocks(true);
            options.setWriteBufferManager(MEMTABLES);
            options.setTableFormatConfig(table);
        }

        @Override
        public void close(String store, Options options) {
            // The cache and the budget are the process's.
        }
    }
}
