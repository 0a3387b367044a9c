"""Small networks of other libraries, random weights, and an input for each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import timm
import torch
import torchvision
import transformers
from torch import Tensor, nn

from models.networks import DepthNetwork, NetworkSpec


@dataclass(frozen=True)
class Foreign:
    """How a network is made, fed and read."""

    make: Callable[[], nn.Module]
    feed: Callable[[], dict[str, Tensor]]
    read: Callable[[Any], Tensor] = lambda output: output
    unused: tuple[str, ...] = ()
    """Layers that this forward does not come by, as `never_trained`."""

    def build(self) -> nn.Module:
        """The same weights at each call, evaluating: no dropout, fixed statistics."""
        torch.manual_seed(0)
        network = self.make().eval()
        with torch.no_grad():  # so that no layer is zero, nor a scale that hides it
            for parameter in network.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
        if self.unused:
            network.never_trained = self.unused
        return network

    def output(self, network: nn.Module) -> Tensor:
        """Float output of any shape, of the same input at each call."""
        torch.manual_seed(1)
        given = self.feed()
        image = given.pop("image", None)
        output = network(**given) if image is None else network(image)
        return self.read(output)


def image(side: int) -> Callable[[], dict[str, Tensor]]:
    return lambda: {"image": torch.randn(2, 3, side, side)}


def pixels(side: int) -> Callable[[], dict[str, Tensor]]:
    return lambda: {"pixel_values": torch.randn(1, 3, side, side)}


def words() -> dict[str, Tensor]:
    return {"input_ids": torch.randint(3, 40, (2, 6))}


def points() -> dict[str, Tensor]:
    labels = torch.tensor([[[0, 1]]])
    return {"input_points": torch.rand(1, 1, 2, 2) * 32, "input_labels": labels}


def logits(output: Any) -> Tensor:
    return output.logits


def tiny_timm(name: str, **given: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, pretrained=False, num_classes=5, **given)


def vit(name: str) -> Callable[[], nn.Module]:
    return tiny_timm(
        name, img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2
    )


def vgg() -> nn.Module:
    """With its own activations in place; the classifier's 4096 channels made 16."""
    layers = torchvision.models.vgg.make_layers([8, "M", 12])
    with torch.device("meta"):
        network = torchvision.models.VGG(layers, init_weights=False)
    network.classifier = nn.Sequential(
        nn.Linear(12 * 7 * 7, 16), nn.ReLU(inplace=True), nn.Linear(16, 5)
    )
    return network


def clip() -> nn.Module:
    size = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    size |= {"num_attention_heads": 2, "projection_dim": 8}
    config = transformers.CLIPConfig(
        text_config={**size, "vocab_size": 50, "max_position_embeddings": 8},
        vision_config={**size, "image_size": 16, "patch_size": 8},
        projection_dim=8,
    )
    return transformers.CLIPModel(config)


def sam() -> nn.Module:
    vision = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
        "mlp_dim": 24,
        "output_channels": 16,
        "num_pos_feats": 8,
        "window_size": 2,
        "global_attn_indexes": [0],
    }
    prompt = {"hidden_size": 16, "image_size": 32, "patch_size": 8}
    prompt |= {"image_embedding_size": 4}
    mask = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    mask |= {"mlp_dim": 24, "iou_head_hidden_dim": 16, "iou_head_depth": 2}
    return transformers.SamModel(
        transformers.SamConfig(
            vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=mask
        )
    )


SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
}
DECODER = {**SMALL, "num_key_value_heads": 1, "pad_token_id": None}


def of(model: str, config: str, **given: Any) -> Callable[[], nn.Module]:
    return lambda: getattr(transformers, model)(getattr(transformers, config)(**given))


NETWORKS = {
    "timm ViT": Foreign(vit("vit_tiny_patch16_224"), image(32)),
    "timm BEiT": Foreign(vit("beit_base_patch16_224"), image(32)),
    "timm EVA02": Foreign(vit("eva02_tiny_patch14_224"), image(32)),
    "timm SwinV2": Foreign(
        tiny_timm(
            "swinv2_tiny_window8_256",
            img_size=32,
            patch_size=4,
            window_size=4,
            embed_dim=12,
            depths=(2, 1),
            num_heads=(2, 2),
        ),
        image(32),
    ),
    "timm ConvNeXt": Foreign(
        tiny_timm("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 12, 16, 20)),
        image(32),
    ),
    "torchvision ResNet": Foreign(
        lambda: torchvision.models.ResNet(
            torchvision.models.resnet.Bottleneck, [1, 1, 1, 1], 5, width_per_group=4
        ),
        image(32),
    ),
    "torchvision VGG": Foreign(vgg, image(16)),
    "torchvision MobileNetV2": Foreign(
        lambda: torchvision.models.mobilenet_v2(
            num_classes=5, width_mult=0.1, inverted_residual_setting=[[2, 8, 2, 2]]
        ),
        image(32),
    ),
    "torchvision Swin": Foreign(
        lambda: torchvision.models.SwinTransformer(
            [4, 4], 12, [2, 1], [2, 2], [4, 4], num_classes=5
        ),
        image(32),
    ),
    "torchvision SqueezeNet": Foreign(
        lambda: torchvision.models.squeezenet1_1(num_classes=5), image(32)
    ),
    "transformers Llama": Foreign(
        of("LlamaForCausalLM", "LlamaConfig", **DECODER), words, logits
    ),
    "transformers Qwen2": Foreign(
        of("Qwen2ForCausalLM", "Qwen2Config", **DECODER, tie_word_embeddings=True),
        words,
        logits,
    ),
    "transformers GPT-2": Foreign(
        of(
            "GPT2LMHeadModel",
            "GPT2Config",
            vocab_size=50,
            n_embd=16,
            n_layer=2,
            n_head=2,
            n_positions=16,
            bos_token_id=0,
            eos_token_id=0,
        ),
        words,
        logits,
    ),
    "transformers BERT": Foreign(
        of("BertForMaskedLM", "BertConfig", **SMALL), words, logits
    ),
    "transformers CLIP": Foreign(
        clip, lambda: words() | pixels(16)(), lambda output: output.logits_per_image
    ),
    "transformers SAM": Foreign(
        sam,
        lambda: {**pixels(32)(), **points()},
        lambda output: torch.cat(
            [output.pred_masks.flatten(), output.iou_scores.flatten()]
        ),
        # Boxes and masks were not given as prompts.
        unused=(r"mask_embed\.", r"mask_downscaling"),
    ),
    # Ours, since a branch of it is never to be adapted.
    "Depth Anything 3": Foreign(
        lambda: DepthNetwork(NetworkSpec("tiny", "v3", "metric", 10.0)), image(28)
    ),
    "transformers Mamba": Foreign(
        of(
            "MambaForCausalLM",
            "MambaConfig",
            vocab_size=50,
            hidden_size=16,
            state_size=4,
            num_hidden_layers=2,
            time_step_rank=4,
            pad_token_id=0,
        ),
        words,
        logits,
    ),
}
