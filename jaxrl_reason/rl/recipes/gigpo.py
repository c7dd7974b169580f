"""GiGPO (arXiv 2505.10978): credit for steps taken in equal states."""

from functools import partial

from jaxrl_reason.losses import gigpo_advantages, grpo_loss, rewards_at_end
from jaxrl_reason.rl.method import Advantages, Estimator, Experience, Method
from jaxrl_reason.rl.recipes.recipe import Composition, Published, Recipe
from jaxrl_reason.rl.response_steps import ResponseSteps
from jaxrl_reason.rl.rollouts import binary_accuracy


def gigpo(*, gamma: float = 0.95, weight: float = 1.0) -> Estimator:
    """GiGPO (arXiv 2505.10978): the episode in its group, each step among its equals.

    The last step earns the outcome, each step what the task gives for it.
    """

    def advantages(x: Experience) -> Advantages:
        states = x["state_ids"]  # [B, S]
        rows, width = states.shape
        outcome = rewards_at_end(x.rewards, states >= 0)  # on the last step
        found = gigpo_advantages(
            x.rewards,
            x["step_rewards"] + outcome,
            states,
            x["step_ids"],
            x.group_ids,
            x.mask,
            num_groups=x.num_groups,
            num_states=rows // x.num_groups * width,
            gamma=gamma,
            weight=weight,
        )
        return Advantages(found)

    return advantages


def _gigpo(max_new_tokens: int) -> Method:
    return Method(
        name="gigpo",
        loss=partial(grpo_loss, clip_low=0.2, clip_high=0.2, kl_coef=0.01),
        advantages=gigpo(),
        rewards=binary_accuracy,
        loss_inputs=("entropy", "ref_logprobs"),
        components=(ResponseSteps(),),
    )


GIGPO = Recipe(
    name="gigpo",
    sources=("2505.10978",),
    build=_gigpo,
    title="GiGPO",
    family="group",
    made_of=Composition(
        "`gigpo_advantages`",
        "`clipped_surrogate`",
        "`sequence_mean`",
        "KL loss k3; a task whose responses have steps (`ResponseSteps`)",
    ),
    settings=Published(
        learning_rate=1e-6,
        group_size=8,
        kl_coef=0.01,
        notes="of its runs on ALFWorld; gamma 0.95 per step, weight of the steps 1",
    ),
    not_published=(
        "clip 0.2 and the mean over sequences here; prompts, updates, temperature: not "
        "in our sources",
        "the reward of an invalid action: none here",
    ),
    not_built=(
        "environments that answer: a response is one episode here, its steps are read "
        "off its text",
    ),
)
