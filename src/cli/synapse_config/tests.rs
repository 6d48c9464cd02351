use std::path::Path;

use super::*;
use squall_protocol::StreamName;

/// A configuration as Synapse's documentation recommends, among keys that Squall does not need.
const HOMESERVER: &str = r#"
# A comment
server_name: "example.org"
pid_file: /data/homeserver.pid
listeners:
  - port: 8008
    type: http
    resources: [{names: [client, federation]}]
database: {name: psycopg2, args: {user: synapse, password: "never-read", cp_max: 10}}
instance_map:
  main: {host: localhost, port: 9093}
  persister1: {host: localhost, port: 9094}
  persister2: {path: /run/persister2.sock}
  writer1: {host: localhost, port: 9095, tls: true}
stream_writers:
  events: [persister1, persister2]
  typing: writer1
  presence:
    - writer1
  profile_updates: [persister1]
federation_sender_instances: [sender1]
redis:
  enabled: true
  host: redis.example.org
  port: 6380
  password: precious
  dbid: 3
presence: {enabled: false}
"#;

fn loaded(texts: &[&str]) -> Result<SynapseConfig, String> {
    let mut documents = Vec::new();
    for (number, text) in texts.iter().enumerate() {
        let path = PathBuf::from(format!("{number}.yaml"));
        documents.push(Document::parse(&path, text).map_err(|error| error.to_string())?);
    }
    SynapseConfig::of(documents).map_err(|error| error.to_string())
}

/// Returns the broker of a configuration, if it enables one.
fn broker_of(texts: &[&str]) -> Result<Option<SynapseRedis>, String> {
    loaded(texts)?.redis().map_err(|error| error.to_string())
}

fn writers_of(config: &SynapseConfig, stream: &str) -> Vec<String> {
    let writers = config.writers.get(&StreamName::from(stream));
    writers.map_or(Vec::new(), |writers| writers.iter().map(ToString::to_string).collect())
}

#[test]
fn a_configuration_names_the_server_the_broker_and_the_writers() {
    let config = loaded(&[HOMESERVER]).unwrap();
    assert_eq!(config.server_name.as_deref(), Some("example.org"));
    let redis = config.redis().unwrap().unwrap();
    assert_eq!((&*redis.host, redis.port, &redis.tls), ("redis.example.org", 6380, &None));
    assert!(matches!(&redis.password, Some(SynapsePassword::Text(text)) if text == "precious"));
    for stream in ["events", "backfill", "sticky_events"] {
        assert_eq!(writers_of(&config, stream), ["persister1", "persister2"], "{stream}");
    }
    for stream in ["typing", "presence", "presence_federation"] {
        assert_eq!(writers_of(&config, stream), ["writer1"], "{stream}");
    }
    for stream in ["receipts", "to_device", "pushers", "federation", "device_lists", "quarantined_media"] {
        assert_eq!(writers_of(&config, stream), ["master"], "{stream}");
    }
    // A stream that only newer versions have is named by its key.
    assert_eq!(writers_of(&config, "profile_updates"), ["persister1"]);
    // Every process writes it.
    assert!(writers_of(&config, "caches").is_empty());
}

#[test]
fn no_secret_is_written_for_debugging() {
    let config = loaded(&[HOMESERVER]).unwrap();
    let text = format!("{config:?} {:?}", config.redis().unwrap());
    assert!(text.contains("(secret)") && !text.contains("precious") && !text.contains("never-read"), "{text}");
}

#[test]
fn without_sections_the_main_process_writes_and_there_is_no_broker() {
    let config = loaded(&["report_stats: false\nredis:\nstream_writers:\n"]).unwrap();
    assert!(config.server_name.is_none() && config.redis().unwrap().is_none());
    assert_eq!(writers_of(&config, "events"), ["master"]);
    assert_eq!(writers_of(&config, "typing"), ["master"]);
    assert!(broker_of(&["redis: {host: h}"]).unwrap().is_none(), "it is not enabled");
}

#[test]
fn a_broker_has_defaults_a_socket_and_tls() {
    let redis = |section: &str| broker_of(&[&format!("redis: {{enabled: yes, {section}}}")]).map(Option::unwrap);
    let plain = redis("").unwrap();
    assert_eq!((&*plain.host, plain.port, plain.password.is_none()), ("localhost", 6379, true));
    let socket = redis("host: h, path: /run/redis.sock, use_tls: true, ca_path: /etc/ssl").unwrap();
    assert_eq!((&*socket.host, socket.tls, socket.ca_folder), ("/run/redis.sock", None, None));
    let file = redis("password_path: /run/secrets/redis").unwrap().password;
    assert!(matches!(file, Some(SynapsePassword::File(path)) if path == Path::new("/run/secrets/redis")));
    let tls = redis("use_tls: true, ca_file: ca.pem, certificate_file: c.pem, private_key_file: k.pem").unwrap().tls;
    let tls = tls.unwrap();
    assert_eq!((tls.ca_file, tls.private_key_file), (Some("ca.pem".into()), Some("k.pem".into())));
    assert!(redis("ca_file: ca.pem").unwrap().tls.is_none());
    let twice = redis("password: precious, password_path: f").unwrap_err();
    assert_eq!(twice, "0.yaml: redis has both password and password_path: keep one of them");
    let folder = redis("use_tls: true, ca_path: /etc/ssl").unwrap();
    assert_eq!((folder.tls, folder.ca_folder), (Some(TlsConfig::default()), Some("/etc/ssl".into())));
    // Synapse logs in with an empty password, which every broker refuses.
    assert!(redis("password: ''").unwrap_err().contains("redis.password must be text, and is empty text"));
    assert!(redis("password:").unwrap().password.is_none());
}

#[test]
fn a_later_file_adds_to_an_earlier_one() {
    let worker = "worker_app: synapse.app.generic_worker\nworker_name: writer2\n";
    let writers = "stream_writers: {to_device: writer2}\n";
    let config = loaded(&["server_name: h\nredis: {enabled: true}\n", writers, worker]).unwrap();
    assert_eq!(writers_of(&config, "to_device"), ["writer2"]);
    assert_eq!((config.server_name.as_deref(), config.redis().unwrap().is_some()), (Some("h"), true));
    // The broker may have another name for each process, and the last one counts.
    let redis = |host: &str| format!("redis: {{enabled: true, host: {host}}}");
    assert_eq!(broker_of(&[&redis("a"), &redis("b")]).unwrap().unwrap().host, "b");
}

#[test]
fn processes_that_do_not_agree_are_an_error() {
    let map = "instance_map: {a: {}, b: {}}\n";
    let first = format!("{map}stream_writers: {{events: [a]}}\n");
    let second = "stream_writers: {events: [a, b]}\n";
    let error = loaded(&[&first, second]).unwrap_err();
    let expected = "0.yaml and 1.yaml have different stream_writers: all processes of a deployment must have the same";
    assert_eq!(error, expected);
    assert!(loaded(&["server_name: a", "server_name: b"]).unwrap_err().contains("different server_name"));
    assert!(loaded(&[&first, "stream_writers: {events: [a]}"]).is_ok());
}

#[test]
fn writers_that_mean_the_same_to_synapse_do_not_differ() {
    let agree = |first: &str, second: &str| {
        let file = |writers: &str| format!("instance_map: {{a: {{}}, b: {{}}}}\nstream_writers: {writers}\n");
        loaded(&[&file(first), &file(second)]).is_ok()
    };
    assert!(agree("{events: [a, b], typing: a}", "{typing: a, events: [a, b]}"), "the order of the keys");
    assert!(agree("{typing: a, events: b}", "{typing: [a], events: [b]}"), "one text, or a list of one");
    assert!(agree("{typing: a, receipts: master}", "{typing: a, presence: }"), "the default");
    assert!(agree("{thread_subscriptions: [a, b]}", "{thread_subscriptions: [b, a]}"), "any of them writes");
    assert!(!agree("{events: [a, b]}", "{events: [b, a]}"), "a room belongs to another writer");
    assert!(!agree("{device_lists: [a, b]}", "{device_lists: [b, a]}"), "another writer is the first");
    assert!(!agree("{typing: a}", "{typing: b}"));
}

#[test]
fn a_writer_that_is_no_instance_is_an_error() {
    let error = loaded(&["instance_map: {writer1: {}}\nstream_writers: {typing: writer2}\n"]).unwrap_err();
    assert!(error.starts_with("0.yaml: stream_writers.typing names writer2, which is not in instance_map"), "{error}");
    assert!(loaded(&["stream_writers: {typing: master}"]).is_ok());
    assert!(loaded(&["instance_map: {main: {}}\nstream_writers: {typing: main}"]).is_err(), "it is called master");
}

#[test]
fn a_wrong_shape_is_an_error_with_its_key() {
    for (text, part) in [
        ("server_name: 7", "server_name must be text, and is a number"),
        ("redis: localhost", "redis must be keys with values, and is text"),
        ("redis: {enabled: 1}", "redis.enabled must be true or false, and is a number"),
        ("redis: {enabled: true, port: 99999}", "redis.port must be a port, and is a number"),
        ("stream_writers: [a]", "stream_writers must be keys with values, and is a list"),
        ("stream_writers: {events: {a: b}}", "stream_writers.events must be the name of an instance"),
        ("stream_writers: {events: a}\ninstance_map: a", "instance_map must be keys with values, and is text"),
    ] {
        let error = broker_of(&[text]).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
}
