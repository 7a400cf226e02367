//! Incidents: from the look that found a number beyond its level to the one that found it back. PURE.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::journal::event::Fact;
use crate::kernel::{Risk, Target, Timestamp};

/// One incident.
#[derive(Clone, Debug, Serialize)]
pub struct Incident {
    /// The metric.
    pub metric: String,
    /// The connection and the target.
    pub place: String,
    /// The worst level that it reached.
    pub level: String,
    /// The last look that found the number in order; absent when none is recorded.
    pub in_order_at: Option<Timestamp>,
    /// When people were told.
    pub detected_at: Timestamp,
    /// When a look found the number back; absent while it is not over.
    pub resolved_at: Option<Timestamp>,
    /// The most that detecting took.
    pub detect_seconds: Option<f64>,
    /// How long it took from telling people to the number's being back.
    pub resolve_seconds: Option<f64>,
    /// The first cause, as it was diagnosed.
    pub cause: Option<String>,
    /// How risky its remedy is; absent: only a person can help, or nobody diagnosed it.
    pub remedy_risk: Option<Risk>,
    /// The run that healed it and proved that.
    pub healed_by: Option<String>,
    /// Whether no person did anything to it.
    pub healed_alone: bool,
}

impl Incident {
    /// Whether its diagnosis named a remedy of low risk.
    pub fn is_low_risk(&self) -> bool {
        self.remedy_risk == Some(Risk::Low)
    }
}

/// What `evaluate_alert_thresholds` returns, as far as it matters here.
#[derive(Deserialize)]
struct Look {
    transitions: Vec<Transition>,
    alerts: Vec<Alert>,
    at: Timestamp,
}

#[derive(Deserialize)]
struct Transition {
    metric: String,
    turn: String,
    level: String,
}

#[derive(Deserialize)]
struct Alert {
    metric: String,
    state: String,
    silenced: Option<String>,
}

/// What `record_healing` returns.
#[derive(Deserialize)]
struct Try {
    issue: String,
    phase: String,
}

/// What `diagnose_root_cause` returns.
#[derive(Deserialize)]
struct Diagnosis {
    metric: Option<String>,
    cause: String,
    causes: Vec<Suspect>,
}

#[derive(Deserialize)]
struct Suspect {
    remedy: Remedy,
}

#[derive(Deserialize)]
struct Remedy {
    risk: Option<Risk>,
}

/// What is known of a metric of a place.
#[derive(Default)]
struct Track {
    in_order_at: Option<Timestamp>,
    /// The newest incident.
    newest: Option<usize>,
}

/// Folds incidents.
pub(super) struct Incidents {
    since: Option<Timestamp>,
    tracks: BTreeMap<(String, String), Track>,
    found: Vec<Incident>,
    /// The metrics that a step is about to judge, by stream and step.
    looking: HashMap<(String, String), BTreeSet<String>>,
    targets: HashMap<String, String>,
}

impl Incidents {
    pub(super) fn new(since: Option<Timestamp>) -> Self {
        Self {
            since,
            tracks: BTreeMap::new(),
            found: Vec::new(),
            looking: HashMap::new(),
            targets: HashMap::new(),
        }
    }

    pub(super) fn run(&mut self, stream: &str, target: &Target) {
        self.targets.insert(stream.to_owned(), target.to_string());
    }

    /// A step began: the numbers that it was given, when it was given some.
    pub(super) fn looks(&mut self, stream: String, step: String, arguments: &Value) {
        let Some(Value::Object(metrics)) = arguments.get("metrics") else { return };
        let measured = metrics.iter().filter(|(_, reading)| reading["value"].is_number());
        let names: BTreeSet<String> = measured.map(|(name, _)| name.clone()).collect();
        if !names.is_empty() {
            self.looking.insert((stream, step), names);
        }
    }

    /// A step came to an output.
    pub(super) fn output(
        &mut self,
        key: (String, String),
        output: &Value,
        fact: Option<&Fact>,
        at: Timestamp,
    ) {
        let judged = self.looking.remove(&key);
        match fact {
            Some(fact) if fact.tool == "evaluate_alert_thresholds" => {
                if let Ok(look) = Look::deserialize(output) {
                    self.look(&fact.place, look, judged.unwrap_or_default());
                }
            }
            Some(fact) if fact.tool == "record_healing" => {
                if let Ok(attempt) = Try::deserialize(output)
                    && attempt.phase == "healed"
                    && let Some(incident) = self.newest(&fact.place, &attempt.issue)
                {
                    incident.healed_by = Some(key.0);
                }
            }
            Some(_) => {}
            // A diagnosis is told by what it says: no later look goes on from it, so it has no name.
            None => {
                if let Ok(diagnosis) = Diagnosis::deserialize(output) {
                    self.diagnosed(&key.0, diagnosis, at);
                }
            }
        }
    }

    fn look(&mut self, place: &str, look: Look, judged: BTreeSet<String>) {
        let at = look.at;
        for turn in look.transitions {
            let key = (place.to_owned(), turn.metric.clone());
            let track = self.tracks.entry(key).or_default();
            let open = track.newest.and_then(|id| self.found.get_mut(id));
            let open = open.filter(|incident| incident.resolved_at.is_none());
            match (turn.turn.as_str(), open) {
                ("resolved", Some(incident)) => {
                    incident.resolved_at = Some(at);
                    let took = at.since(incident.detected_at).as_secs_f64();
                    incident.resolve_seconds = Some(took);
                }
                // What began before the journal that is read is no incident of this time.
                ("resolved" | "eased", None) => {}
                (_, Some(incident)) => {
                    if turn.level == "critical" {
                        incident.level = turn.level;
                    }
                }
                (turned, None) => {
                    let began = track.in_order_at;
                    track.newest = Some(self.found.len());
                    let is_new = turned == "fired";
                    self.found.push(Incident {
                        metric: turn.metric,
                        place: place.to_owned(),
                        level: turn.level,
                        in_order_at: began,
                        detected_at: at,
                        resolved_at: None,
                        detect_seconds: began
                            .filter(|_| is_new)
                            .map(|began| at.since(began).as_secs_f64()),
                        resolve_seconds: None,
                        cause: None,
                        remedy_risk: None,
                        healed_by: None,
                        healed_alone: false,
                    });
                }
            }
        }
        for metric in judged {
            let alert = look.alerts.iter().find(|alert| alert.metric == metric);
            // While people do not want to be told, nothing waits to be detected.
            let is_quiet =
                alert.is_none_or(|alert| alert.state == "normal" || alert.silenced.is_some());
            if is_quiet {
                self.tracks.entry((place.to_owned(), metric)).or_default().in_order_at = Some(at);
            }
        }
    }

    fn newest(&mut self, place: &str, metric: &str) -> Option<&mut Incident> {
        let track = self.tracks.get(&(place.to_owned(), metric.to_owned()))?;
        self.found.get_mut(track.newest?)
    }

    fn diagnosed(&mut self, stream: &str, diagnosis: Diagnosis, at: Timestamp) {
        let (Some(metric), Some(target)) = (diagnosis.metric, self.targets.get(stream)) else {
            return;
        };
        let is_here = |incident: &&mut Incident| {
            let place = incident.place.split_once(' ').map_or("", |(_, target)| target);
            incident.metric == metric && place == target && incident.detected_at <= at
        };
        let incident = self.found.iter_mut().rev().find(is_here);
        if let Some(incident) = incident.filter(|incident| incident.cause.is_none()) {
            incident.cause = Some(diagnosis.cause);
            incident.remedy_risk = diagnosis.causes.first().and_then(|first| first.remedy.risk);
        }
    }

    /// The incidents, the newest first. `untouched` says of a run that no person did anything to it.
    pub(super) fn finish(self, untouched: impl Fn(&str) -> bool) -> Vec<Incident> {
        let mut found = self.found;
        found.retain(|one| self.since.is_none_or(|since| one.detected_at >= since));
        for one in &mut found {
            one.healed_alone =
                one.resolved_at.is_some() && one.healed_by.as_deref().is_some_and(&untouched);
        }
        found.reverse();
        found
    }
}
