//! What is trained.

use std::fmt;

/// What is trained.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Method {
    /// Low-rank factors beside the weights of attention and feed-forward networks, which stay as they are.
    ///
    /// Source: Hu et al. 2021, LoRA (arXiv 2106.09685).
    Lora {
        /// The rank of the factors.
        rank: usize,
        /// The product of the factors is multiplied by this over the rank.
        alpha: f64,
    },
    /// All weights that the answer depends on.
    Full,
}

impl Method {
    /// Names the method as the command line does.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Lora { .. } => "lora",
            Self::Full => "full",
        }
    }

    /// Returns the highest learning rate, where the caller names none.
    #[must_use]
    pub fn default_learning_rate(&self) -> f64 {
        match self {
            Self::Lora { .. } => 2e-3,
            Self::Full => 3e-4,
        }
    }

    /// Returns the weight decay: factors begin small and stay so.
    pub(super) fn weight_decay(&self) -> f32 {
        match self {
            Self::Lora { .. } => 0.0,
            Self::Full => 0.01,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lora { rank, alpha } => write!(f, "LoRA of rank {rank}, alpha {alpha}"),
            Self::Full => f.write_str("all weights"),
        }
    }
}
