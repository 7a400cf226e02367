//! Configuration: layers, origins, hints, overrides per target.

use std::path::Path;
use std::sync::Arc;

use lakeops::config::{Config, ConfigError, Environment as _, FixedEnvironment, Flags, Origin};
use lakeops::kernel::{Redactor, Risk, Secret, Span, Target};

struct Place {
    folder: tempfile::TempDir,
    environment: FixedEnvironment,
}

impl Place {
    fn new(file: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(".config")).unwrap();
        std::fs::write(folder.path().join(".config/lakeops.toml"), file).unwrap();
        let environment = FixedEnvironment {
            current_dir: folder.path().to_owned(),
            user: "ann".into(),
            place: "desk".into(),
            ..FixedEnvironment::default()
        };
        Self { folder, environment }
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.vars.insert(name.into(), value.into());
        self
    }

    fn load(&self, flags: &Flags) -> Result<Config, ConfigError> {
        Config::load(Arc::new(self.environment.clone()), flags)
    }

    fn ok(&self) -> Config {
        self.load(&Flags::default()).unwrap()
    }

    fn error(&self) -> String {
        self.load(&Flags::default()).unwrap_err().to_string()
    }
}

fn target(project: &str, branch: &str) -> Target {
    Target { project: Some(project.into()), branch: Some(branch.into()), database: None }
}

fn origin(config: &Config, key: &str) -> Origin {
    config.show().into_iter().find(|shown| shown.key == key).unwrap().origin
}

#[test]
fn the_shipped_file_says_the_defaults() {
    let text = include_str!("../../.config/lakeops.toml");
    let written = Place::new(text).ok();
    let nothing = Place::new("").ok();
    let values = |config: &Config| {
        let shown = config.show().into_iter().map(|shown| (shown.key, shown.value));
        shown.collect::<Vec<_>>()
    };
    assert_eq!(written.settings(), nothing.settings());
    let (written_values, defaults) = (values(&written), values(&nothing));
    let keys =
        |values: &[(String, _)]| values.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
    assert_eq!(keys(&written_values), keys(&defaults));
    // Every value that is set by default stands in the file, so that it teaches all of them.
    let silent = written.show().into_iter().filter(|shown| {
        let is_empty = shown.value.is_null() || shown.value == serde_json::json!({});
        shown.origin == Origin::Default && !is_empty
    });
    assert_eq!(silent.map(|shown| shown.key).collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn the_later_layer_wins_and_each_value_knows_its_origin() {
    let place =
        Place::new("state = \"a\"\nworkflows = \"w\"\n[settings.limits]\nlock_timeout = \"7s\"\n")
            .with("LAKEOPS_WORKFLOWS", "from-env")
            .with("LAKEOPS_STATE", "from-env")
            .with("LAKEOPS_SETTINGS__LIMITS__MAX_BARREN_RESUMES", "4")
            .with("LAKEOPS_SETTINGS__APPROVALS__ASK_FROM", "medium")
            .with("LAKEOPS_SETTINGS__APPROVALS__ALLOW_SELF", "false");
    let flags = Flags { state: Some("from-flag".into()), ..Flags::default() };
    let config = place.load(&flags).unwrap();
    let root = place.folder.path();
    assert_eq!(config.state_dir(), root.join("from-flag"));
    assert_eq!(config.workflows_dir(), root.join("from-env"));
    assert_eq!(config.sops_dir(), root.join("sops"));
    let settings = config.settings();
    assert_eq!(settings.limits.lock_timeout, Span::from_secs(7));
    assert_eq!(settings.limits.max_barren_resumes, 4);
    assert_eq!(settings.approvals.ask_from, Risk::Medium);
    assert!(!settings.approvals.allow_self);
    assert_eq!(origin(&config, "state"), Origin::Flag { flag: "--state".into() });
    let variable = "LAKEOPS_WORKFLOWS".into();
    assert_eq!(origin(&config, "workflows"), Origin::Environment { variable });
    assert_eq!(origin(&config, "sops"), Origin::Default);
    let file = ".config/lakeops.toml".into();
    let expected = Origin::File { file, line: 4, column: 16 };
    assert_eq!(origin(&config, "settings.limits.lock_timeout"), expected);
}

#[test]
fn the_file_is_found_from_a_folder_below() {
    let mut place = Place::new("sops = \"rules\"\n");
    let below = place.folder.path().join("a/b");
    std::fs::create_dir_all(&below).unwrap();
    place.environment.current_dir = below;
    assert_eq!(place.ok().sops_dir(), place.folder.path().join("rules"));
}

#[test]
fn every_unknown_key_has_a_place_and_a_hint() {
    let error = Place::new(
        "conection = \"local\"\n\n[settings.limits]\n  lock_timout = \"3s\"\n\n[settings.approvals]\nask_from = \"hihg\"\n",
    )
    .error();
    insta::assert_snapshot!(error, @r#"
    a configuration has no key `conection`
      --> .config/lakeops.toml:1:1
      |
    1 | conection = "local"
      | ^
      = did you mean `connection`?
    "hihg" is not one of low, medium, high
      --> .config/lakeops.toml:7:12
      |
    7 | ask_from = "hihg"
      |            ^
    `settings.limits` has no key `lock_timout`
      --> .config/lakeops.toml:4:3
      |
    4 |   lock_timout = "3s"
      |   ^
      = did you mean `lock_timeout`?
    "#);
}

#[test]
fn folders_and_a_connection_alone_mean_the_same_as_beside_other_keys() {
    let flags = Flags { state: Some("there".into()), ..Flags::default() };
    let values = |file: &str| {
        let config = Place::new(file).load(&flags).unwrap();
        assert!(config.state_dir().ends_with("there"));
        assert!(config.workflows_dir().ends_with("mine"));
        assert_eq!(config.settings(), &lakeops::config::Settings::default());
        let shown = config.show().into_iter().filter(|shown| shown.key != "state");
        shown.map(|shown| (shown.key, shown.value)).collect::<Vec<_>>()
    };
    let alone = values("workflows = \"mine\"\n");
    assert_eq!(alone, values("workflows = \"mine\"\nactor_from_env = false\n"));
    assert!(Place::new("workflows = 3\n").error().contains("lakeops.toml:1:13"));
}

#[test]
fn unknown_variables_are_errors_too() {
    let error = Place::new("").with("LAKEOPS_DATABSE_URL", "postgres://db/app").error();
    assert!(error.contains("did you mean `LAKEOPS_DATABASE_URL`?"), "{error}");
    let error = Place::new("").with("LAKEOPS_SETTINGS__LIMITS__LOCK_TIMOUT", "1s").error();
    assert!(error.contains("did you mean `LAKEOPS_SETTINGS__LIMITS__LOCK_TIMEOUT`?"), "{error}");
    let error = Place::new("").with("LAKEOPS_ACTOR_FROM_ENV", "true").error();
    assert!(error.contains("sets nothing"), "{error}");
    let short = Place::new("").with("LAKEOPS_POSTGRES_BIN", "/opt/pg/bin").ok();
    assert_eq!(short.local_postgres().binaries.as_deref(), Some("/opt/pg/bin"));
    let named = Place::new("[secrets.hook]\nenv = \"LAKEOPS_HOOK\"\n");
    named.with("LAKEOPS_HOOK", "long-enough-value").ok();
}

#[test]
fn a_missing_kind_is_found_where_the_table_stands() {
    let error = Place::new("# one\n[connections.prod]\nurl_env = \"X\"\n").error();
    assert!(error.contains("`connections.prod` lacks the key `kind`"), "{error}");
    assert!(error.contains("lakeops.toml:2:"), "{error}");
}

#[test]
fn a_target_overrides_just_what_it_says() {
    let config = Place::new(
        "[settings.thresholds.lock_wait_seconds]\nwarning = 10\n\
         [targets.\"shop/production\".thresholds.lock_wait_seconds]\ncritical = 60\n\
         [targets.\"shop/production\".approvals]\nask_from = \"low\"\n",
    )
    .ok();
    let there = config.settings_for(&target("shop", "production"));
    let level = there.thresholds["lock_wait_seconds"];
    assert!((level.warning - 10.0).abs() < 1e-9 && (level.critical - 60.0).abs() < 1e-9);
    assert_eq!(there.approvals.ask_from, Risk::Low);
    assert_eq!(there.limits, config.settings().limits);
    let elsewhere = config.settings_for(&target("shop", "staging"));
    assert_eq!(&elsewhere, config.settings());
    assert!((elsewhere.thresholds["lock_wait_seconds"].critical - 120.0).abs() < 1e-9);
}

#[test]
fn a_half_threshold_of_a_new_metric_is_refused() {
    let error = Place::new("[targets.\"a/b\".thresholds.mine]\ncritical = 60\n").error();
    assert!(error.contains("lacks the key `warning`"), "{error}");
}

#[test]
fn a_database_url_is_a_connection_of_its_own() {
    let url = "postgres://ann:long-password@db/app";
    let flags = Flags { database_url: Some(Secret::new(url.into())), ..Flags::default() };
    let config = Place::new("").load(&flags).unwrap();
    assert_eq!(config.selected_connection(), "database-url");
    let redactor = Redactor::default();
    let read = config.url("database-url", &redactor).unwrap().unwrap();
    assert_eq!(read.expose(), url);
    assert_eq!(redactor.mask("long-password"), "[redacted]");
    let shown = serde_json::to_string(&config.show()).unwrap();
    assert!(!shown.contains("long-password") && shown.contains("ann:***@db"), "{shown}");

    let both = Place::new("").with("LAKEOPS_DATABASE_URL", url);
    assert_eq!(both.ok().selected_connection(), "database-url");
    let flag = Flags { connection: Some("local".into()), ..Flags::default() };
    assert_eq!(both.load(&flag).unwrap().selected_connection(), "local");
    let error = both.with("LAKEOPS_CONNECTION", "local").error();
    assert!(error.contains("give one of the two"), "{error}");
}

#[test]
fn an_unknown_connection_has_a_hint() {
    let error = Place::new("connection = \"locl\"\n").error();
    assert!(error.contains("did you mean `local`?") && error.contains(":1:14"), "{error}");
}

#[test]
fn the_environment_names_the_actor_only_where_the_file_allows_it() {
    let refused = Place::new("").with("LAKEOPS_ACTOR", "bob").ok().actor().unwrap_err();
    assert!(matches!(refused, ConfigError::ActorNotAllowed));
    let allowed = Place::new("actor_from_env = true").with("LAKEOPS_ACTOR", "bob").ok();
    let actor = allowed.actor().unwrap();
    assert_eq!((actor.name.as_str(), actor.from.as_str()), ("bob", "ann at desk"));
    assert_eq!(Place::new("").ok().actor().unwrap().name, "ann");
}

#[test]
fn a_named_file_must_be_there() {
    let place = Place::new("");
    let flags = Flags { config: Some("nowhere.toml".into()), ..Flags::default() };
    assert!(matches!(place.load(&flags), Err(ConfigError::Unreadable { .. })));
}

#[test]
fn the_real_environment_knows_user_and_place() {
    let real = lakeops::config::ProcessEnvironment;
    assert!(!real.user().is_empty() && !real.place().is_empty());
    assert!(Path::new(&real.current_dir()).is_absolute());
}
