//! The surface as a whole: the document, probes, metrics, and errors from outside the handlers.

use crate::{
    access,
    rig::{Answer, Rig, incident, quick},
};
use axum::{Json, http::StatusCode, response::IntoResponse, routing::get};
use reqwest::Method;
use ropeway_core::{change::Change, receipt::Receipt};
use ropeway_protocol::{Problem, ProblemCode as P};
use ropeway_server::{Caller, Host};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use utoipa_axum::router::OpenApiRouter;

/// The native routes, as PROTOCOL.md lists them.
const ROUTES: [(&str, &str); 17] = [
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("GET", "/version"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("POST", "/v1/push"),
    ("GET", "/v1/pull"),
    ("GET", "/v1/subscriptions"),
    ("PUT", "/v1/subscriptions/{audience}"),
    ("DELETE", "/v1/subscriptions/{audience}"),
    ("GET", "/v1/live"),
    ("GET", "/v1/conflicts"),
    ("GET", "/v1/conflicts/{id}"),
    ("POST", "/v1/conflicts/{id}/resolve"),
    ("GET", "/v1/devices"),
    ("POST", "/v1/devices"),
    ("POST", "/v1/devices/{id}/revoke"),
];

#[tokio::test]
async fn the_document_lists_exactly_the_routes() {
    let rig = Rig::new().await;
    let document = rig.get("/openapi.json", "").await.ok();
    let pure = ropeway_server::document(env!("CARGO_PKG_VERSION"), Vec::new());
    assert_eq!(serde_json::to_value(pure).unwrap(), document, "no server is needed to say the same");
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut listed = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            listed.insert((method.to_uppercase(), path.clone()));
            assert!(
                !operation["summary"].as_str().unwrap_or_default().is_empty(),
                "{method} {path} says nothing"
            );
            assert_eq!(operation.get("security").is_some(), path.starts_with("/v1"), "{method} {path}");
        }
    }
    let expected: BTreeSet<_> = ROUTES.iter().map(|(m, p)| ((*m).to_owned(), (*p).to_owned())).collect();
    assert_eq!(listed, expected);
    let (text, schemas) = (document.to_string(), &document["components"]["schemas"]);
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schemas.get(name).is_some(), "{name} is referred to and not there");
    }
    let protocol = include_str!("../../../../PROTOCOL.md");
    for (method, path) in ROUTES {
        let answer =
            Answer::of(rig.request(method.parse().unwrap(), path, "wrong").send().await.unwrap()).await;
        assert!(!matches!(answer.status, 404 | 405), "{method} {path}: {}", answer.text);
        assert!(
            protocol.contains(&format!("`{method} {path}`")),
            "PROTOCOL.md does not speak of {method} {path}"
        );
    }
    for code in P::ALL {
        let row = format!("| `{}` | {} | {} |", code.as_str(), code.status(), code.next());
        assert!(protocol.contains(&row), "PROTOCOL.md lacks {row}");
    }
}

/// The names of a shape's fields in the document.
fn documented(document: &Value, shape: &str) -> BTreeSet<String> {
    let properties = &document["components"]["schemas"][shape]["properties"];
    properties.as_object().unwrap_or_else(|| panic!("no shape {shape}")).keys().cloned().collect()
}

fn written(value: &impl Serialize) -> BTreeSet<String> {
    serde_json::to_value(value).unwrap().as_object().unwrap().keys().cloned().collect()
}

#[tokio::test]
async fn the_documents_shapes_are_what_travels() {
    let rig = Rig::new().await;
    let document = rig.get("/openapi.json", "").await.ok();
    let change: Change = serde_json::from_value(json!({
        "id": "c", "collection": "incident", "record": "i", "op": "patch", "fields": { "a": 1 }, "seen": { "a": 2 },
        "base": { "epoch": "e", "version": 1 }, "lost": { "epoch": "e", "version": 1 }, "author": { "device": "d", "person": "p" },
        "at": { "wall": "2026-01-01T00:00:00Z", "boot": 1, "mono": 2, "offset": 3 },
    }))
    .unwrap();
    let receipt: Receipt = serde_json::from_value(json!({
        "change": "c", "verdict": "parked", "collection": "incident", "id": "i", "version": 1, "stamp": 2,
        "record": { "id": "i", "version": 1, "state": { "joined": "j" }, "data": {}, "author": { "device": "d" },
            "modified_at": "2026-01-01T00:00:00Z" },
        "detail": { "parked": ["a"], "conflicts": ["c:a"] },
        "reason": { "code": "invalid", "field": "a", "text": "t" },
    }))
    .unwrap();
    assert_eq!(documented(&document, "Change"), written(&change));
    assert_eq!(documented(&document, "Author"), written(&change.author));
    assert_eq!(documented(&document, "Base"), written(&change.base));
    assert_eq!(documented(&document, "AuthorTime"), written(&change.at));
    assert_eq!(documented(&document, "Receipt"), written(&receipt));
    assert_eq!(documented(&document, "Record"), written(&receipt.record));
    assert_eq!(documented(&document, "Detail"), written(&receipt.detail));
    assert_eq!(documented(&document, "Reason"), written(&receipt.reason));
    let problem = Problem { quarantined: Some(1), ..Problem::new(P::DeviceRevoked, "x").after(1) };
    assert_eq!(documented(&document, "Problem"), written(&problem));
    assert_eq!(documented(&document, "Hello"), written(&rig.get("/version", "").await.ok()));
    assert_eq!(documented(&document, "Pushed"), written(&rig.push(&[incident(1)]).await.ok()));
    let id = access::conflict(&rig).await;
    assert_eq!(
        documented(&document, "ConflictShown"),
        written(&rig.get(&format!("/v1/conflicts/{id}"), &rig.reader).await.ok()),
    );
    let devices = rig.get("/v1/devices", &rig.admin).await.ok();
    assert_eq!(documented(&document, "Device"), written(&devices["devices"][0]));
}

#[tokio::test]
async fn a_node_says_who_and_how_it_is() {
    let rig = Rig::new().await;
    assert_eq!(rig.get("/health/live", "").await.ok()["status"], "live");
    assert_eq!(rig.get("/health/ready", "").await.ok()["status"], "ready");
    let version = rig.get("/version", "").await;
    assert_eq!(version.ok()["epoch"], "epoch-1");
    assert_eq!(version.header("ropeway-node"), "epoch-1");
    assert_eq!(version.header("x-content-type-options"), "nosniff");
    assert_eq!(version.header("cache-control"), "no-store");
    assert!(!version.header("x-request-id").is_empty());
    rig.push(&[incident(1), incident(2)]).await.ok();
    rig.get("/v1/pull", &rig.reader).await;
    rig.get("/nowhere/at/all", "").await;
    let metrics = rig.get("/metrics", "").await;
    assert!(metrics.header("content-type").starts_with("application/openmetrics-text"));
    for line in [
        "ropeway_http_requests_total{method=\"POST\",route=\"/v1/push\",class=\"2xx\"} 1",
        "ropeway_http_requests_total{method=\"GET\",route=\"unmatched\",class=\"4xx\"} 1",
        "ropeway_changes_total{verdict=\"created\"} 2",
        "ropeway_records_served_total 2",
        "ropeway_push_duration_seconds_count 1",
        "ropeway_pull_duration_seconds_count 1",
        "ropeway_conflicts_open 0",
        "ropeway_head_ahead_seconds ",
        "ropeway_live_streams 0",
        "# EOF",
    ] {
        assert!(metrics.text.contains(line), "{line}: {}", metrics.text);
    }
    for private in ["main", "referee", "admin-main"] {
        assert!(!metrics.text.contains(private), "{private} is in the metrics");
    }
}

#[tokio::test]
async fn errors_outside_the_handlers_are_problems_too() {
    let rig = Rig::new().await;
    for path in
        ["/", "/v1", "/v1/push/", "/V1/push", "/v1//push", "/v2/pull", "/v1/%70ush%00", "/..%2fv1/push"]
    {
        rig.get(path, &rig.admin).await.is(P::NotFound);
    }
    for (method, path) in
        [(Method::GET, "/v1/push"), (Method::DELETE, "/v1/devices"), (Method::POST, "/v1/pull")]
    {
        let answer = Answer::of(rig.request(method, path, &rig.admin).send().await.unwrap()).await;
        answer.is_with(405, P::Malformed);
        assert!(!answer.header("allow").is_empty());
    }
    let overridden = rig.request(Method::GET, "/v1/devices/reader-main/revoke", &rig.admin);
    let answer = overridden.header("x-http-method-override", "POST").send().await.unwrap();
    assert_eq!(answer.status(), 405);
    assert_eq!(rig.get("/v1/conflicts", &rig.reader).await.status, 200);
    let head = rig.request(Method::HEAD, "/health/live", "").send().await.unwrap();
    assert_eq!(
        (head.status().as_u16(), &head.headers()["content-type"]),
        (200, &"application/json".parse().unwrap())
    );
    rig.is_up_and_empty().await;
}

#[tokio::test]
async fn apps_are_mounted_beside_and_keep_their_own_errors() {
    let boom = || async {
        if true {
            panic!("on purpose");
        }
    };
    let refuse = || async { (StatusCode::CONFLICT, Json(json!({ "success": false }))).into_response() };
    let who = |caller: Caller| async move { Json(json!({ "device": caller.device.id })) };
    let app: OpenApiRouter<Host> = OpenApiRouter::new()
        .route("/api/boom", get(boom))
        .route("/api/refuse", get(refuse))
        .route("/api/who", get(who));
    let rig = Rig::with(quick(), vec![app]).await;
    rig.get("/api/boom", "").await.is(P::Internal);
    let refused = rig.get("/api/refuse", "").await;
    assert_eq!((refused.status, refused.json()), (409, json!({ "success": false })));
    assert_eq!(refused.header("ropeway-node"), "epoch-1");
    assert_eq!(rig.get("/api/who", &rig.reader).await.ok()["device"], "reader-main");
    rig.get("/api/who", "wrong").await.is(P::Unauthenticated);
    rig.is_up_and_empty().await;
}

/// ISMF-145: an operator switched syncing off. Devices are told to come back, people and probes are served.
#[tokio::test]
async fn a_node_whose_syncing_is_switched_off_says_so() {
    let rig = Rig::not_syncing().await;
    for (method, path) in [("POST", "/v1/push"), ("GET", "/v1/pull"), ("GET", "/v1/live")] {
        for token in [&rig.referee, "wrong"] {
            let request = rig.request(method.parse().unwrap(), path, token);
            let answer = Answer::of(request.send().await.unwrap()).await;
            let problem = answer.is(P::Unavailable);
            assert!(problem["detail"].as_str().unwrap().contains("SYNC_ENABLED"), "{problem}");
            assert_eq!(problem["retry_after"], 60);
        }
    }
    assert_eq!(rig.get("/v1/conflicts", &rig.admin).await.status, 200);
    assert_eq!(rig.get("/version", "").await.ok()["service"], "ropeway");
    rig.is_up_and_empty().await;
}
