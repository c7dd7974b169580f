"""ReMax (arXiv 2310.10505): the greedy response as the baseline."""

from jaxrl_reason.losses import remax_advantages, rloo_loss
from jaxrl_reason.rl.greedy_baseline import GreedyBaseline
from jaxrl_reason.rl.method import Advantages, Experience, Method
from jaxrl_reason.rl.recipes.recipe import Composition, Published, Recipe
from jaxrl_reason.rl.rollouts import binary_accuracy


def remax(x: Experience) -> Advantages:
    """ReMax (arXiv 2310.10505): the reward of the greedy response as the baseline."""
    return Advantages(remax_advantages(x.rewards, x["greedy_rewards"]))


def _remax(max_new_tokens: int) -> Method:
    return Method(
        name="remax",
        loss=rloo_loss,
        advantages=remax,
        rewards=binary_accuracy,
        loss_inputs=("entropy",),
        min_group_size=1,
        components=(GreedyBaseline(),),
    )


REMAX = Recipe(
    name="remax",
    sources=("2310.10505",),
    build=_remax,
    title="ReMax",
    family="reinforce",
    made_of=Composition(
        "`remax_advantages`",
        "`policy_gradient`",
        "`sequence_sum_mean`",
        "one greedy response per prompt",
    ),
    settings=Published(group_size=1, notes="one more greedy response per prompt"),
    not_published=(
        "the KL in the token rewards: left out",
        "learning rate, batch, updates, length limit, temperature: not in our sources",
    ),
)
