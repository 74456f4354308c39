//! Pulling everything anew: after a restored backup of this device, or from beyond the horizon.

use super::space::Space;

impl Space {
    /// Forgets how far the upstream was read.
    pub(super) fn pull_anew(&mut self) {
        self.unstage();
        self.followed.token = None;
    }
}
