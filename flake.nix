{
  description = "narvault backs up Nix store paths and Hydra releases into a binary cache that can be mounted";

  # There is no flake.lock: the only input is Nixpkgs, and any revision with Go 1.26 will do. Give your own with
  # `inputs.nixpkgs.follows` or --override-input; Nix may want --no-write-lock-file for a flake that it cannot write to.
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixpkgs-unstable";

  outputs = { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" ];
      package = pkgs: pkgs.callPackage ./nix/package.nix {
        src = self;
        version = "unstable-${builtins.substring 0 8 (self.lastModifiedDate or "19700101")}";
      };
    in
    {
      overlays.default = final: prev: { narvault = package final; };

      packages = nixpkgs.lib.genAttrs systems (system: rec {
        narvault = package nixpkgs.legacyPackages.${system};
        default = narvault;
      });
    };
}
