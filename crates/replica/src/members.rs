//! People of this node. They are each node's own and never sync (ISMF-038).

use crate::{Node, ReplicaError, secret::hex};
use argon2::{Argon2, PasswordHasher};
use ropeway_core::id::SpaceId;
use ropeway_store::Member;

/// A person to add.
#[derive(Debug, Clone)]
pub struct NewMember {
    /// E-mail address.
    pub email: String,
    /// The space they belong to.
    pub space: SpaceId,
    /// A role of the profile.
    pub role: String,
    /// The password; `None`: one is drawn and returned.
    pub password: Option<String>,
}

impl Node {
    /// Adds a person. Returns the password where one was drawn; nobody can show it again.
    ///
    /// Errors: an address or a password that will not do, an unknown role, an address that is taken.
    pub async fn add_member(&self, new: NewMember) -> Result<(Member, Option<String>), ReplicaError> {
        let email = new.email.trim().to_lowercase();
        let plausible =
            email.split_once('@').is_some_and(|(name, host)| !name.is_empty() && host.contains('.'));
        if !plausible || email.len() > 254 || email.chars().any(char::is_whitespace) {
            return Err(ReplicaError::Invalid(format!("`{email}` is not an e-mail address")));
        }
        if !self.inner.profile.roles.contains_key(&new.role) {
            return Err(ReplicaError::Invalid(format!("the profile has no role `{}`", new.role)));
        }
        self.must_be_a_tenant(&new.space).await?;
        let taken = |email: &str| ReplicaError::Invalid(format!("`{email}` is there already"));
        if self.members().await?.iter().any(|m| m.email == email) {
            return Err(taken(&email));
        }
        let drawn = new.password.is_none().then(|| hex(&self.inner.ids.secret()[..12]));
        let password = new.password.or_else(|| drawn.clone()).unwrap_or_default();
        if password.chars().count() < 12 {
            return Err(ReplicaError::Invalid("a password needs at least 12 characters".into()));
        }
        let salt = self.inner.ids.secret();
        // Memory-hard on purpose: off the runtime's threads.
        let hashed = tokio::task::spawn_blocking(move || {
            Argon2::default()
                .hash_password_with_salt(password.as_bytes(), &salt[..16])
                .map(|hash| hash.to_string())
        });
        let password_hash = match hashed.await {
            Ok(Ok(hash)) => hash,
            _ => return Err(ReplicaError::Invalid("the password could not be hashed".into())),
        };
        let member = Member {
            email,
            space: new.space,
            role: new.role,
            password_hash,
            disabled: false,
            created_at: self.inner.clock.now(),
        };
        // Hashing takes long: somebody else may have added it meanwhile, with another password.
        match self.inner.store.add_member(&member).await? {
            true => Ok((member, drawn)),
            false => Err(taken(&member.email)),
        }
    }

    /// Everybody on this node.
    pub async fn members(&self) -> Result<Vec<Member>, ReplicaError> {
        Ok(self.inner.store.members().await?)
    }

    /// Locks somebody out.
    pub async fn disable_member(&self, email: &str) -> Result<Member, ReplicaError> {
        let email = email.trim().to_lowercase();
        let found = self.members().await?.into_iter().find(|m| m.email == email);
        let mut member = found.ok_or_else(|| ReplicaError::NotFound(format!("`{email}`")))?;
        member.disabled = true;
        self.inner.store.put_member(&member).await?;
        Ok(member)
    }
}
