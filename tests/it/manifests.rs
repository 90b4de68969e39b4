//! What `deploy/` places: every name that a manifest, a rule or a dashboard uses is one that exists.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::harness::{Federation, Spec, muster, muster_in, repository, skip};

/// The port of peers, as `config/default.toml` has it.
const PEERS: u16 = 4001;

/// The file of a container's member.
const SETTINGS: &str = "/var/lib/muster/muster.toml";

fn read(path: &str) -> String {
    fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[track_caller]
fn yaml<T: DeserializeOwned>(path: &str) -> T {
    serde_yaml_ng::from_str(&merged(&read(path))).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The text with its merge keys resolved, which are no part of YAML itself.
fn merged(text: &str) -> String {
    let mut value: serde_yaml_ng::Value = serde_yaml_ng::from_str(text).unwrap();
    value.apply_merge().unwrap();
    serde_yaml_ng::to_string(&value).unwrap()
}

/// Every file below a folder of the repository.
fn files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![repository(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// A member made as the container's first process makes it, with `muster` of this test, and what `config check` says of it.
#[track_caller]
fn check_member(what: &str, args: &[String], variables: &BTreeMap<String, String>) {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    let all: Vec<&str> =
        ["init", "--dir", home.to_str().unwrap()].into_iter().chain(args.iter().map(String::as_str)).collect();
    muster(&all).ok();
    let variables: Vec<(&str, &str)> = variables
        .iter()
        .filter(|(name, _)| name.starts_with("MUSTER_"))
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    let checked = muster_in(&home, &variables, &["--config", "muster.toml", "config", "check"]);
    assert_eq!(checked.code, Some(0), "{what}: {checked:?}");
    assert!(checked.err.is_empty(), "{what} sets what is no setting: {checked:?}");
}

// Prometheus and Grafana.

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    alert: String,
    expr: String,
    #[serde(default, rename = "for")]
    lasting: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

fn rules() -> Vec<Rule> {
    let rules: Rules = yaml("deploy/prometheus/muster.rules.yml");
    assert!(rules.groups.iter().all(|group| !group.name.is_empty()));
    rules.groups.into_iter().flat_map(|group| group.rules).collect()
}

/// The expressions and queries of every dashboard, by its file.
fn queries() -> Vec<(String, String)> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    match field.as_str() {
                        Some(text) if ["expr", "query"].contains(&name.as_str()) && text.contains("muster") => {
                            found.push(text.to_owned());
                        }
                        _ => collect(field, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
            _ => {}
        }
    }
    let mut all = Vec::new();
    for path in files("deploy/grafana") {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let board: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert!(board["panels"].as_array().is_some_and(|panels| !panels.is_empty()), "{name}");
        let mut found = Vec::new();
        collect(&board, &mut found);
        assert!(found.len() >= 6, "{name}: {found:?}");
        all.extend(found.into_iter().map(|query| (name.clone(), query)));
    }
    all
}

/// The names of our metrics in an expression.
fn named(expression: &str) -> BTreeSet<String> {
    expression
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("muster_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn rules_and_dashboards_name_only_metrics_that_members_serve() {
    let federation = Federation::converged(1, &["paris"]);
    let mut served = BTreeMap::new();
    for member in ["indexer-1", "paris"] {
        let text = federation.member(member).ask("/metrics").unwrap().body;
        let names: BTreeSet<String> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split([' ', '{']).next())
            .map(str::to_owned)
            .collect();
        served.insert(member, names);
    }
    let expressions = rules().into_iter().map(|rule| (rule.alert, rule.expr)).chain(queries());
    let mut count = 0;
    for (place, expression) in expressions {
        let names = named(&expression);
        assert!(!names.is_empty() || expression.contains("up{"), "{place}: {expression}");
        for name in names {
            count += 1;
            for (member, served) in &served {
                assert!(served.contains(&name), "{place} asks for {name}, which {member} does not serve");
            }
        }
    }
    assert!(count > 50, "{count}");
}

#[test]
fn every_rule_and_every_alert_has_a_runbook() {
    for rule in rules() {
        let severity = rule.labels.get("severity").map(String::as_str);
        assert!(["warning", "critical"].map(Some).contains(&severity), "{}", rule.alert);
        assert!(rule.annotations.contains_key("summary"), "{}", rule.alert);
        let runbook = &rule.annotations["runbook"];
        assert!(repository(runbook).is_file(), "{} names {runbook}", rule.alert);
        let text = read(runbook);
        assert!(text.contains(&rule.alert), "{runbook} does not know the rule {} that names it", rule.alert);
        assert!(rule.lasting.is_none_or(|lasting| lasting.ends_with('m')), "{}", rule.alert);
    }
    for topic in protocol::alerts::Topic::ALL {
        let runbook = format!("docs/runbooks/{}.md", topic.name().replace('_', "-"));
        let text = read(&runbook).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(&format!("`{}`", topic.name())), "{runbook}");
        assert!(text.contains("muster alerts"), "{runbook}");
    }
    // And none that nothing leads to.
    let index = read("docs/runbooks/README.md");
    for path in files("docs/runbooks") {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(name == "README.md" || index.contains(&format!("({name})")), "the index does not name {name}");
    }
}

// Compose.

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Compose {
    name: String,
    services: BTreeMap<String, Service>,
    networks: BTreeMap<String, Value>,
    volumes: BTreeMap<String, Value>,
    #[serde(rename = "x-member")]
    _member: Value,
    #[serde(rename = "x-settings")]
    _settings: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    image: String,
    #[serde(default)]
    build: Option<Build>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    entrypoint: Vec<String>,
    command: Option<Vec<String>>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    restart: Option<String>,
    #[serde(default)]
    read_only: bool,
    #[serde(default)]
    tmpfs: Vec<String>,
    #[serde(default)]
    cap_drop: Vec<String>,
    #[serde(default)]
    security_opt: Vec<String>,
    #[serde(default)]
    stop_grace_period: Option<String>,
    #[serde(default)]
    healthcheck: Option<Health>,
    #[serde(default)]
    volumes: Vec<String>,
    #[serde(default)]
    networks: Vec<String>,
    #[serde(default)]
    network_mode: Option<String>,
    #[serde(default)]
    depends_on: BTreeMap<String, Dependency>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Build {
    context: String,
    dockerfile: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Health {
    test: Vec<String>,
    #[serde(rename = "interval")]
    _interval: String,
    #[serde(rename = "timeout")]
    _timeout: String,
    #[serde(default, rename = "start_period")]
    _start_period: Option<String>,
    retries: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Dependency {
    condition: String,
}

#[test]
fn the_compose_file_is_a_whole_federation_of_settings_that_are_valid() {
    let file = "deploy/compose/compose.yaml";
    let compose: Compose = yaml(file);
    assert_eq!(compose.name, "muster");
    let build = compose.services["key"].build.as_ref().unwrap();
    let context = repository("deploy/compose").join(&build.context).canonicalize().unwrap();
    assert_eq!(context, repository(".").canonicalize().unwrap());
    assert!(context.join(&build.dockerfile).is_file());
    let mut members = 0;
    for (name, service) in &compose.services {
        for needed in service.depends_on.keys() {
            let other = compose.services.get(needed).unwrap_or_else(|| panic!("{name} waits for {needed}"));
            let condition = &service.depends_on[needed].condition;
            match condition.as_str() {
                "service_healthy" => assert!(other.healthcheck.as_ref().is_some_and(|health| health.retries > 0)),
                "service_completed_successfully" => assert!(other.restart.is_none()),
                other => assert_eq!(other, "service_started"),
            }
        }
        for volume in &service.volumes {
            let (volume, place) = volume.split_once(':').unwrap();
            assert!(compose.volumes.contains_key(volume), "{name} mounts {volume}");
            assert!(place.starts_with('/'), "{name}: {place}");
        }
        assert!(service.networks.iter().all(|network| compose.networks.contains_key(network)), "{name}");
        assert!(service.networks.is_empty() == service.network_mode.is_some(), "{name}");
        if service.image != "muster" {
            assert!(service.image.contains(':'), "{name}: an image without a version is another one tomorrow");
            continue;
        }
        assert!(service.read_only && !service.tmpfs.is_empty(), "{name}");
        let Some(health) = &service.healthcheck else {
            assert_eq!(service.user.as_deref(), Some("10001:10001"));
            assert_eq!(service.entrypoint, ["sh", "-c"]);
            continue;
        };
        members += 1;
        assert_eq!(health.test[..4], ["CMD", "muster", "--config", SETTINGS]);
        check_verb(&health.test[2..]);
        assert!(service.cap_drop == ["ALL"] && service.security_opt == ["no-new-privileges:true"], "{name}");
        assert!(service.stop_grace_period.is_some(), "{name}: it leaves for up to 10 s");
        check_member(name, service.command.as_ref().unwrap(), &plain(&service.environment));
        let environment = &service.environment;
        let reaches = |url: &str| {
            let host = url.rsplit(['@', '/']).find(|part| part.contains(':')).unwrap().split(':').next().unwrap();
            let other = compose.services.get(host).unwrap_or_else(|| panic!("{name} reaches for {host}"));
            assert!(other.networks.iter().any(|network| service.networks.contains(network)), "{name} and {host}");
        };
        environment.get("MUSTER_BUS__URL").into_iter().for_each(|url| reaches(url));
        if let Some(url) = environment.get("MUSTER_STORE__URL") {
            reaches(url.rsplit_once('/').unwrap().0);
        }
        if let Some(address) = environment.get("SEED_ADDRESS") {
            assert_eq!(*address, format!("/dns4/{name}/tcp/{PEERS}"));
        }
    }
    assert_eq!(members, 6);
}

/// Settings as they are once the operator has chosen what is asked for.
fn plain(environment: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let chosen = |text: &String| text.replace("${MUSTER_POSTGRES_PASSWORD:?choose one}", "secret");
    environment.iter().map(|(name, text)| (name.clone(), chosen(text))).collect()
}

/// The verb of a probe is one of ours: asked for its help, it knows itself and its flags.
#[track_caller]
fn check_verb(words: &[String]) {
    let words: Vec<&str> = words.iter().map(String::as_str).chain(["--help"]).collect();
    let said = muster(&words).ok();
    for flag in words.iter().filter(|word| word.starts_with("--")) {
        assert!(said.out.contains(flag), "{flag}: {}", said.out);
    }
}

// The container.

#[test]
fn the_containers_first_process_makes_a_member_once_and_becomes_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    muster(&["init", "--dir", path("first").to_str().unwrap(), "--name", "first"]).ok();
    // In the place of the installed binary: it says what it was called with, and does it unless it is to run.
    let binary = path("bin/muster");
    fs::create_dir(path("bin")).unwrap();
    let stub = format!(
        "#!/bin/sh\nif [ \"$1\" = run ]; then echo \"runs $*\"; exit 0; fi\nexec '{}' \"$@\"\n",
        env!("CARGO_BIN_EXE_muster")
    );
    fs::write(&binary, stub).unwrap();
    Command::new("chmod").arg("755").arg(&binary).status().unwrap();
    let seed = path("seed");
    let start = |home: &Path, variables: &[(&str, &str)], args: &[&str]| {
        let mut command = Command::new(repository("deploy/container/start"));
        let search = format!("{}:{}", path("bin").display(), std::env::var("PATH").unwrap());
        command.env_clear().env("PATH", search).env("HOME", home).env("SEED_FILE", &seed);
        let ended = command.envs(variables.iter().copied()).args(args).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        assert!(ended.status.success(), "{ended:?}");
        assert!(said.contains(&format!("runs run --config {}/muster.toml", home.display())), "{said}");
    };
    let (desk, paris) = (path("desk"), path("paris"));
    let key = path("first/swarm.key");
    let address = [("SEED_ADDRESS", "/dns4/desk-1/tcp/4001"), ("SWARM_KEY_FILE", key.to_str().unwrap())];
    start(&desk, &address, &["--name", "desk-1", "--mode", "indexer"]);
    let told = fs::read_to_string(&seed).unwrap();
    let id = muster(&["--config", desk.join("muster.toml").to_str().unwrap(), "--output", "json", "id"]).ok().json();
    assert_eq!(told.trim(), format!("/dns4/desk-1/tcp/4001/p2p/{}", id["peer_id"].as_str().unwrap()));
    assert_eq!(fs::read(desk.join("swarm.key")).unwrap(), fs::read(&key).unwrap());

    start(&paris, &[("SWARM_KEY_FILE", key.to_str().unwrap())], &["--name", "paris"]);
    let settings = fs::read_to_string(paris.join("muster.toml")).unwrap();
    assert!(settings.contains(told.trim()), "{settings}");
    let identity = fs::read(paris.join("identity.pem")).unwrap();
    start(&paris, &[("SWARM_KEY_FILE", "/nowhere")], &["--name", "paris"]);
    assert_eq!(fs::read(paris.join("identity.pem")).unwrap(), identity, "it is made once");
}

#[test]
fn the_container_file_copies_what_exists_and_runs_as_nobody() {
    let text = read("deploy/container/Containerfile");
    let steps: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let of = |word: &str| steps.iter().filter_map(|line| line.strip_prefix(word)).map(str::trim).collect::<Vec<_>>();
    assert_eq!(of("FROM ").len(), 2, "built in one, run in another");
    for copied in of("COPY ").into_iter().filter(|copied| !copied.starts_with("--from")) {
        let from = copied.split(' ').next().unwrap();
        assert!(repository(from).exists(), "{from}");
    }
    assert_eq!(of("USER "), ["10001:10001"]);
    assert_eq!(of("EXPOSE "), [PEERS.to_string()]);
    assert_eq!(of("ENTRYPOINT "), [r#"["muster-start"]"#]);
    let health = text.split("HEALTHCHECK").nth(1).unwrap();
    let command = health.split("CMD ").nth(1).unwrap().lines().next().unwrap();
    let words: Vec<String> = serde_json::from_str(command).unwrap();
    assert_eq!(words[..3], ["muster", "--config", SETTINGS]);
    check_verb(&words[1..]);
}

#[test]
fn a_probe_of_readiness_fails_until_the_member_can_do_its_job() {
    let mut federation = Federation::new();
    federation.add(Spec::node("paris")).start();
    let paris = federation.member("paris");
    paris.status();
    let alone = paris.verb(&["status", "--ready"]);
    assert_eq!(alone.code, Some(1), "{alone:?}");
    assert!(alone.out.contains("not ready") && alone.err.contains("paris is not ready\n  "), "{alone:?}");
    assert_eq!(paris.verb(&["status"]).code, Some(0), "it is alive all the same");
    let federation = Federation::converged(1, &["lyon"]);
    assert_eq!(federation.member("lyon").verb(&["status", "--ready"]).code, Some(0));
}

// Kubernetes.

/// One object of a manifest, as far as it is looked at.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    api_version: String,
    kind: String,
    metadata: Metadata,
    #[serde(default)]
    spec: Value,
    #[serde(default)]
    data: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Container {
    name: String,
    image: String,
    args: Vec<String>,
    env: Vec<Variable>,
    env_from: Vec<Value>,
    ports: Vec<ContainerPort>,
    security_context: SecurityContext,
    startup_probe: Probe,
    liveness_probe: Probe,
    readiness_probe: Probe,
    resources: Value,
    volume_mounts: Vec<Mount>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Variable {
    name: String,
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    value_from: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ContainerPort {
    name: String,
    container_port: u16,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SecurityContext {
    allow_privilege_escalation: bool,
    read_only_root_filesystem: bool,
    capabilities: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Probe {
    exec: Exec,
    period_seconds: u32,
    timeout_seconds: u32,
    failure_threshold: u32,
}

#[derive(Deserialize)]
struct Exec {
    command: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Mount {
    name: String,
    mount_path: String,
    #[serde(default)]
    read_only: bool,
}

/// Every object that the kustomization puts together.
fn objects() -> Vec<Object> {
    let list: Value = yaml("deploy/kubernetes/kustomization.yaml");
    let named: BTreeSet<String> =
        list["resources"].as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned()).collect();
    let there: BTreeSet<String> = files("deploy/kubernetes")
        .iter()
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .filter(|name| name != "kustomization.yaml")
        .collect();
    assert_eq!(named, there, "each file is named, and each name is a file");
    let documents = |name: &String| {
        let text = read(&format!("deploy/kubernetes/{name}"));
        serde_yaml_ng::Deserializer::from_str(&text)
            .map(|document| Object::deserialize(document).unwrap_or_else(|error| panic!("{name}: {error}")))
            .collect::<Vec<_>>()
    };
    named.iter().flat_map(documents).collect()
}

fn find<'a>(objects: &'a [Object], kind: &str, name: &str) -> &'a Object {
    let found = objects.iter().find(|object| object.kind == kind && object.metadata.name == name);
    found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

#[test]
fn the_kubernetes_manifests_name_what_exists_and_their_settings_are_valid() {
    let objects = objects();
    let settings = find(&objects, "ConfigMap", "muster");
    for (name, mode) in [("muster-indexer", "indexer"), ("muster-node", "node")] {
        let set = find(&objects, "StatefulSet", name);
        assert_eq!(set.api_version, "apps/v1");
        let service = find(&objects, "Service", set.spec["serviceName"].as_str().unwrap());
        let labels = &set.spec["template"]["metadata"]["labels"];
        assert_eq!(&set.spec["selector"]["matchLabels"], labels);
        assert_eq!(&service.spec["selector"], labels);
        assert!(service.spec["clusterIP"] == "None" && service.spec["publishNotReadyAddresses"] == true);
        let pod = &set.spec["template"]["spec"];
        assert!(pod["terminationGracePeriodSeconds"].as_u64().unwrap() > 12, "leaving and stopping take up to 12 s");
        assert!(pod["securityContext"]["runAsNonRoot"] == true && pod["automountServiceAccountToken"] == false);
        let containers: Vec<Container> = serde_json::from_value(pod["containers"].clone()).unwrap();
        let [container] = containers.try_into().ok().unwrap();
        check_container(&container, pod, set, settings, mode);
        let port = &container.ports[0];
        assert!(
            service.spec["ports"][0]["targetPort"] == port.name.as_str() && service.spec["ports"][0]["port"] == PEERS
        );
    }
    assert_eq!(find(&objects, "StatefulSet", "muster-node").spec["replicas"], 1, "one member, one identity");
    let budget = find(&objects, "PodDisruptionBudget", "muster-indexer");
    let indexers = find(&objects, "StatefulSet", "muster-indexer");
    assert_eq!(budget.spec["selector"], indexers.spec["selector"]);
    assert!(indexers.spec["replicas"].as_u64().unwrap() > budget.spec["maxUnavailable"].as_u64().unwrap());
    let policy = find(&objects, "NetworkPolicy", "muster");
    assert_eq!(policy.spec["ingress"][0]["ports"][0]["port"], PEERS);
    assert!(policy.spec["ingress"].as_array().unwrap().len() == 1, "the admin endpoint is nobody's from outside");
}

fn check_container(container: &Container, pod: &Value, set: &Object, settings: &Object, mode: &str) {
    let name = &set.metadata.name;
    assert_eq!((container.name.as_str(), container.image.as_str()), ("muster", "muster"));
    assert_eq!((container.ports[0].name.as_str(), container.ports[0].container_port), ("peers", PEERS));
    let context = &container.security_context;
    assert!(!context.allow_privilege_escalation && context.read_only_root_filesystem, "{name}");
    assert_eq!(context.capabilities["drop"][0], "ALL");
    assert!(container.resources["limits"]["memory"].is_string(), "{name}");
    for probe in [&container.startup_probe, &container.liveness_probe, &container.readiness_probe] {
        assert_eq!(probe.exec.command[..3], ["muster", "--config", SETTINGS]);
        check_verb(&probe.exec.command[1..]);
        assert!(probe.timeout_seconds > 12, "{name}: a verb waits 12 s for its answer");
        assert!(probe.period_seconds > 0 && probe.failure_threshold > 1);
    }
    assert!(container.readiness_probe.exec.command.contains(&"--ready".to_owned()));
    // What is mounted is there, and what is written is on it.
    let volumes = pod["volumes"].as_array().unwrap().iter().map(|volume| volume["name"].as_str().unwrap());
    let claims = set.spec["volumeClaimTemplates"].as_array().unwrap();
    let claims = claims.iter().map(|claim| claim["metadata"]["name"].as_str().unwrap());
    let there: BTreeSet<&str> = volumes.chain(claims).collect();
    let mounted: BTreeMap<&str, &Mount> =
        container.volume_mounts.iter().map(|mount| (mount.mount_path.as_str(), mount)).collect();
    assert!(mounted.values().all(|mount| there.contains(mount.name.as_str())), "{name}");
    assert!(mounted.contains_key("/tmp") && mounted.contains_key("/var/lib/muster"), "{name}: the rest is read-only");
    // Secrets are named, never held.
    let key = container.env.iter().find(|variable| variable.name == "SWARM_KEY_FILE").unwrap();
    let folder = Path::new(key.value.as_ref().unwrap()).parent().unwrap().to_str().unwrap();
    assert!(mounted[folder].read_only, "{name}");
    assert_eq!(container.env_from[0]["configMapRef"]["name"], settings.metadata.name.as_str());
    let mut variables = settings.data.clone();
    for variable in &container.env {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), None) => value.clone(),
            (None, Some(from)) if from["secretKeyRef"]["key"] == "bus-url" => "nats://bus:4222".to_owned(),
            (None, Some(from)) if from["secretKeyRef"]["key"] == "store-url" => "postgresql://m:s@db/m".to_owned(),
            (None, Some(from)) => from["fieldRef"]["fieldPath"].as_str().unwrap().to_owned(),
            other => panic!("{name}: {} is {other:?}", variable.name),
        };
        variables.insert(variable.name.clone(), value);
    }
    let args: Vec<String> = container.args.iter().map(|word| word.replace("$(POD_NAME)", "muster-0")).collect();
    assert!(args.iter().any(|word| word == mode), "{args:?}");
    check_member(name, &args, &variables);
    // As it will be once the first indexer is known.
    let seed =
        "[\"/dns4/muster-indexer-0.muster-indexer/tcp/4001/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN\"]";
    variables.insert("MUSTER_NETWORK__SEEDS".to_owned(), seed.to_owned());
    check_member(name, &args, &variables);
}

#[test]
fn the_manifests_are_what_kustomize_puts_together() {
    let test = "the_manifests_are_what_kustomize_puts_together";
    let mut command = Command::new("kubectl");
    let Ok(built) = command.arg("kustomize").arg(repository("deploy/kubernetes")).output() else {
        skip(test, "there is no kubectl");
        return;
    };
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let text = String::from_utf8_lossy(&built.stdout).into_owned();
    let documents = serde_yaml_ng::Deserializer::from_str(&text).map(|document| Value::deserialize(document).unwrap());
    let namespaces: Vec<Value> = documents.map(|document| document["metadata"]["namespace"].clone()).collect();
    assert_eq!(namespaces.len(), objects().len());
    assert!(namespaces.iter().all(|namespace| namespace == "muster"));
}

// The package.

#[test]
fn the_package_holds_what_exists_and_what_the_binary_writes() {
    let manifest: toml_edit::DocumentMut = read("Cargo.toml").parse().unwrap();
    let package = &manifest["package"]["metadata"]["deb"];
    let folder = tempfile::tempdir().unwrap();
    let man = folder.path().join("man");
    muster(&["man", "--dir", man.to_str().unwrap()]).ok();
    let build = read("deploy/deb/build");
    for asset in package["assets"].as_array().unwrap() {
        let asset: Vec<&str> = asset.as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
        let [from, to, mode] = asset[..] else { panic!("{asset:?}") };
        assert!(!to.starts_with('/') && ["644", "755"].contains(&mode), "{asset:?}");
        match from.strip_prefix("target/") {
            None => assert!(repository(from).is_file(), "{from}"),
            Some("release/muster") => assert!(build.contains("--bin muster")),
            Some("deb/man/*.1") => assert!(man.join("muster.1").is_file() && build.contains("man --dir \"$made/man\"")),
            Some(made) => {
                let shell = made.strip_prefix("deb/completions/muster.").unwrap();
                assert!(muster(&["completions", shell]).ok().out.contains("muster"));
                assert!(build.lines().any(|line| line.starts_with("for shell in") && line.contains(shell)), "{shell}");
            }
        }
    }
    for script in ["postinst", "prerm", "postrm"] {
        let path = repository(package["maintainer-scripts"].as_str().unwrap()).join(script);
        assert!(Command::new("sh").arg("-n").arg(&path).status().unwrap().success(), "{script}");
        assert!(fs::read_to_string(&path).unwrap().contains("\nset -e\n"), "{script}");
    }
    // The user and the folder that are made are those of the units.
    let unit = read("deploy/systemd/muster.service");
    let made = read("deploy/deb/postinst");
    assert!(unit.contains("\nUser=muster\n") && made.contains("--home /var/lib/muster"));
    assert!(unit.contains("\nStateDirectory=muster\n") && made.contains("-o muster -g muster -m 0700 /var/lib/muster"));
}
