//! Traces by OTLP, in builds with the feature `otel`: a span for each time that a run is worked on, and one
//! for each try of a step.
//!
//! They go to `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, or `OTEL_EXPORTER_OTLP_ENDPOINT` with `/v1/traces`; with
//! neither, nowhere. Spans carry the ids of runs and steps, and nothing of what is measured or changed.

use tracing_subscriber::Registry;
use tracing_subscriber::layer::Layer;

use super::error::CliError;
use crate::config::Environment;

/// What listens to spans.
pub(super) type Spans = Box<dyn Layer<Registry> + Send + Sync>;

/// Traces that are being sent; what is left goes out when this is dropped.
#[derive(Debug)]
pub(super) struct Traces {
    #[cfg(feature = "otel")]
    provider: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

/// Starts sending, when that is wanted.
#[cfg(not(feature = "otel"))]
#[expect(clippy::unnecessary_wraps, reason = "with the feature it can fail")]
pub(super) fn start(_: &dyn Environment) -> Result<(Option<Spans>, Traces), CliError> {
    Ok((None, Traces {}))
}

/// Starts sending, when that is wanted.
#[cfg(feature = "otel")]
pub(super) fn start(environment: &dyn Environment) -> Result<(Option<Spans>, Traces), CliError> {
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::filter::filter_fn;

    let all = || {
        let base = environment.var("OTEL_EXPORTER_OTLP_ENDPOINT")?;
        Some(format!("{}/v1/traces", base.trim_end_matches('/')))
    };
    let Some(endpoint) = environment.var("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(all) else {
        return Ok((None, Traces { provider: None }));
    };
    // Another part of the program may have chosen the same already.
    drop(rustls::crypto::ring::default_provider().install_default());
    let exporter = SpanExporter::builder().with_http().with_endpoint(&endpoint).build();
    let exporter = exporter
        .map_err(|error| CliError::usage(format!("traces cannot go to {endpoint}: {error}")))?;
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(Resource::builder().with_service_name("lakeops").build())
        .build();
    // Events are left to the logs, where secrets are masked.
    let ours = filter_fn(|about| about.is_span() && about.target().starts_with("lakeops"));
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("lakeops"));
    Ok((Some(layer.with_filter(ours).boxed()), Traces { provider: Some(provider) }))
}

#[cfg(feature = "otel")]
impl Drop for Traces {
    fn drop(&mut self) {
        if let Some(provider) = self.provider.take() {
            // Nobody is left to be told that a collector is away.
            drop(provider.shutdown());
        }
    }
}
