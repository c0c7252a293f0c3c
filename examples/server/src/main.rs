//! Tags uploaded audio files: `cargo run --release --manifest-path examples/server/Cargo.toml`, then
//! `curl --data-binary @examples/audio/telephone.wav http://127.0.0.1:8080/tag`.

use std::io::Cursor;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::Json;
use axum::routing::{get, post};
use clipwise::{Tagger, Waveform};
use serde_json::{Value, json};

/// The largest upload in bytes.
const MAX_BYTES: usize = 64 << 20;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let tagger = Arc::new(Tagger::bundled(&clipwise::device::best()?)?); // one for all requests
    let app = Router::new()
        .route("/tag", post(tag).layer(DefaultBodyLimit::max(MAX_BYTES)))
        .route("/healthz", get(|| async { "ok" }))
        .with_state(tagger);
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_string());
    let listener = tokio::net::TcpListener::bind(&address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let interrupt = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    axum::serve(listener, app).with_graceful_shutdown(interrupt).await?;
    Ok(())
}

type Answer = Result<Json<Value>, (StatusCode, Json<Value>)>;

/// Tagging computes for tens of milliseconds, so it runs beside the threads that serve connections.
async fn tag(State(tagger): State<Arc<Tagger>>, upload: Bytes) -> Answer {
    let failed = |status, error: &dyn std::fmt::Display| (status, Json(json!({ "error": error.to_string() })));
    let tagging = tokio::task::spawn_blocking(move || {
        let waveform = Waveform::read(Cursor::new(upload))?;
        Ok::<_, clipwise::Error>((waveform.duration(), tagger.tag(&waveform)?))
    });
    match tagging.await {
        Ok(Ok((duration, tagging))) => Ok(Json(json!({ "duration": duration, "tags": tagging.top_k(10) }))),
        Ok(Err(error)) => Err(failed(StatusCode::UNPROCESSABLE_ENTITY, &error)), // no audio that can be read
        Err(error) => Err(failed(StatusCode::INTERNAL_SERVER_ERROR, &error)),
    }
}
