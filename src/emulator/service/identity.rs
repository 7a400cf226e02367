//! Who calls: discovery, the token endpoint for machines, and the caller itself.

use base64::Engine as _;
use serde_json::{Value, json};

use super::call::Call;
use super::context::Service;
use super::credentials::{Token, digest};
use super::error::ApiError;

/// How long a token of the token endpoint lives, in seconds.
const TOKEN_LIFE: u64 = 3600;
pub(super) const WORKSPACE: &str = "1000000000000001";

/// What SDKs ask first, without a token.
pub(super) fn discovery(service: &Service) -> Value {
    json!({
        "oidc_endpoint": format!("{}/oidc", service.host),
        "workspace_id": WORKSPACE,
        "host_type": "WORKSPACE",
    })
}

pub(super) fn oidc_metadata(service: &Service) -> Value {
    let base = format!("{}/oidc", service.host);
    json!({
        "issuer": base,
        "authorization_endpoint": format!("{base}/v1/authorize"),
        "token_endpoint": format!("{base}/v1/token"),
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "grant_types_supported": ["client_credentials"],
        "scopes_supported": ["all-apis"],
    })
}

/// Why a client gets no token, in the words of RFC 6749.
pub(super) struct TokenRefusal {
    pub status: u16,
    pub error: &'static str,
    pub description: String,
}

impl TokenRefusal {
    fn new(status: u16, error: &'static str, description: impl Into<String>) -> Self {
        Self { status, error, description: description.into() }
    }
}

/// `client_credentials`: a service principal shows its secret and gets a token.
pub(super) fn issue_token(
    service: &Service,
    authorization: Option<&str>,
    form: &[(String, String)],
) -> Result<Value, TokenRefusal> {
    let field = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| &**value);
    if field("grant_type") != Some("client_credentials") {
        let text = "only client_credentials is supported";
        return Err(TokenRefusal::new(400, "unsupported_grant_type", text));
    }
    let given = authorization.and_then(basic);
    let posted = || Some((field("client_id")?.to_owned(), field("client_secret")?.to_owned()));
    let unknown = || TokenRefusal::new(401, "invalid_client", "Client authentication failed");
    let (client, secret) = given.or_else(posted).ok_or_else(unknown)?;
    let broken = |error: ApiError| TokenRefusal::new(500, "server_error", error.message);
    let token = service.secret("lkt_");
    service
        .store
        .transact(|tx| {
            let known: Option<Value> = tx.get(&principal_name(&client))?;
            let fits =
                known.is_some_and(|known| known["secret_digest"] == digest(&secret).as_str());
            if fits {
                let life = std::time::Duration::from_secs(TOKEN_LIFE);
                let expires = service.clock.now().plus(life).as_millis();
                tx.put_token(&digest(&token), expires, &Token::Api { principal: client.clone() })?;
            }
            Ok::<_, ApiError>(fits)
        })
        .map_err(broken)?
        .then(|| {
            json!({
                "access_token": token,
                "token_type": "Bearer",
                "expires_in": TOKEN_LIFE,
                "scope": "all-apis",
            })
        })
        .ok_or_else(unknown)
}

fn basic(authorization: &str) -> Option<(String, String)> {
    let encoded = authorization.strip_prefix("Basic ")?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (client, secret) = text.split_once(':')?;
    Some((client.to_owned(), secret.to_owned()))
}

fn principal_name(client: &str) -> String {
    format!("emulator/service_principals/{}", client.replace('/', "%2F"))
}

/// Makes a service principal; the answer alone shows its secret.
pub(super) fn create_principal(service: &Service, call: &Call) -> Result<Value, ApiError> {
    let client = call.body["client_id"].as_str().map_or_else(|| service.uuid(), str::to_owned);
    let secret = service.secret("dose");
    service.store.transact(|tx| {
        let known = json!({ "client_id": client, "secret_digest": digest(&secret) });
        Ok::<_, ApiError>(tx.put(&principal_name(&client), &known)?)
    })?;
    Ok(json!({ "client_id": client, "client_secret": secret }))
}

/// Who holds the token of a call.
pub(super) fn principal(
    service: &Service,
    authorization: Option<&str>,
) -> Result<String, ApiError> {
    let Some(token) = authorization.and_then(|text| text.strip_prefix("Bearer ")) else {
        return Err(ApiError::new(401, "UNAUTHENTICATED", "Credential was not sent."));
    };
    let digest = digest(token.trim());
    if digest == service.token_digest {
        return Ok(service.user.clone());
    }
    let now = service.clock.now().as_millis();
    let found = service.store.transact(|tx| Ok::<_, ApiError>(tx.token::<Token>(&digest, now)?))?;
    match found {
        Some(Token::Api { principal }) => Ok(principal),
        _ => Err(ApiError::new(403, "PERMISSION_DENIED", "Invalid access token.")),
    }
}

/// The caller, as SCIM describes people.
pub(super) fn me(service: &Service, call: &Call) -> Value {
    let name = &call.principal;
    let is_own = *name == service.user;
    let mut me = json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
        "id": if is_own { "1000" } else { "1001" },
        "userName": name,
        "displayName": name,
        "active": true,
    });
    if name.contains('@') {
        me["emails"] = json!([{ "type": "work", "value": name, "primary": true }]);
    } else {
        me["applicationId"] = json!(name);
    }
    me
}
